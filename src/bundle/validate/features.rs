//! Rules for state and action: widths, names, statistics and limits.

use super::in_range;
use crate::bundle::features::{ActionFeature, Normalization, StateFeature};
use crate::error::Result;
use crate::limits::MAX_FEATURE_DIM;

impl StateFeature {
    pub(super) fn check(&self) -> Result<()> {
        let (dim, padded, normalized) = (self.dim, self.padded_dim, self.normalized_len());
        check_widths("state", dim, padded, self.names.as_deref())?;
        check!(
            (dim..=padded).contains(&normalized),
            "state.normalized_dim is {normalized}, it must be from dim {dim} to padded_dim {padded}"
        );
        self.normalization.check("state.normalization", normalized)
    }
}

impl ActionFeature {
    pub(super) fn check(&self, state_dim: usize) -> Result<()> {
        check_widths("action", self.dim, self.padded_dim, self.names.as_deref())?;
        self.normalization.check("action.normalization", self.dim)?;
        if let Some(mask) = &self.relative_mask {
            same_length("action.relative_mask", mask.len(), self.dim)?;
            let last = mask.iter().rposition(|&on| on).filter(|&i| i >= state_dim);
            if let Some(i) = last {
                refuse!("action.relative_mask is true at {i}, but the state has only {state_dim} entries");
            }
        }
        match &self.limits {
            Some(limits) => in_order("action.limits", ("min", &limits.min), ("max", &limits.max), self.dim),
            None => Ok(()),
        }
    }
}

impl Normalization {
    fn eps(&self) -> f64 {
        match *self {
            Normalization::Identity { eps }
            | Normalization::MeanStd { eps, .. }
            | Normalization::MinMax { eps, .. }
            | Normalization::Quantiles { eps, .. }
            | Normalization::Quantile10 { eps, .. }
            | Normalization::ZScore { eps, .. }
            | Normalization::QuantileRange { eps, .. } => eps,
        }
    }

    fn check(&self, key: &str, dim: usize) -> Result<()> {
        let eps = self.eps();
        check!(eps.is_finite() && eps >= 0.0, "{key}.eps is {eps}, it must be finite and not negative");
        match self {
            Normalization::Identity { .. } => Ok(()),
            Normalization::MeanStd { mean, std, .. } => {
                finite(key, "mean", mean, dim)?;
                finite(key, "std", std, dim)?;
                match std.iter().position(|&s| s < 0.0 || s + eps as f32 == 0.0) {
                    Some(i) => {
                        refuse!("{key}.std[{i}] is {} with eps {eps}; the sum must be positive", std[i])
                    }
                    None => Ok(()),
                }
            }
            Normalization::MinMax { min, max, .. } => span(key, ("min", min), ("max", max), eps, dim),
            Normalization::Quantiles { q01, q99, .. } => span(key, ("q01", q01), ("q99", q99), eps, dim),
            Normalization::Quantile10 { q10, q90, .. } => span(key, ("q10", q10), ("q90", q90), eps, dim),
            Normalization::ZScore { mean, std, .. } => {
                finite(key, "mean", mean, dim)?;
                finite(key, "std", std, dim)?;
                divisors(key, "std", std.iter().map(|std| std + eps))?;
                check!(std.iter().all(|&std| std >= 0.0), "{key}.std holds a negative value");
                Ok(())
            }
            Normalization::QuantileRange { q01, q99, .. } => {
                in_order(key, ("q01", q01), ("q99", q99), dim)?;
                divisors(key, "q99", q01.iter().zip(q99).map(|(low, high)| high - low + eps))
            }
        }
    }
}

fn check_widths(key: &str, dim: usize, padded: usize, names: Option<&[String]>) -> Result<()> {
    in_range(format_args!("{key}.dim"), dim, MAX_FEATURE_DIM)?;
    in_range(format_args!("{key}.padded_dim"), padded, MAX_FEATURE_DIM)?;
    check!(padded >= dim, "{key}.padded_dim is {padded}, less than dim {dim}");
    names.map_or(Ok(()), |names| same_length(&format!("{key}.names"), names.len(), dim))
}

fn same_length(key: &str, found: usize, dim: usize) -> Result<()> {
    check!(found == dim, "{key} has {found} entries, the feature has {dim}");
    Ok(())
}

/// Checks that `high` is above `low` by something f32 can divide by, `eps` taking the place of nothing.
fn span(key: &str, low: (&str, &[f32]), high: (&str, &[f32]), eps: f64, dim: usize) -> Result<()> {
    in_order(key, low, high, dim)?;
    let spans = || low.1.iter().zip(high.1).map(|(low, high)| high - low);
    match spans().position(|span| span == 0.0 && eps as f32 == 0.0 || !span.is_finite()) {
        Some(i) => refuse!(
            "{key}.{}[{i}] and {}[{i}] span {} with eps {eps}; nothing can be divided by that",
            high.0,
            low.0,
            high.1[i] - low.1[i]
        ),
        None => Ok(()),
    }
}

/// Checks that each divisor, eps included, is positive in f32 as well, which its quotients are rounded to.
fn divisors(key: &str, name: &str, mut divisors: impl Iterator<Item = f64>) -> Result<()> {
    match divisors.position(|d| !(d as f32 > 0.0 && (d as f32).is_finite())) {
        Some(i) => refuse!("{key}.{name}[{i}] and eps make a divisor that is not positive and finite"),
        None => Ok(()),
    }
}

/// Checks that two lists of finite numbers bound something.
fn in_order<T: Statistic>(key: &str, low: (&str, &[T]), high: (&str, &[T]), dim: usize) -> Result<()> {
    finite(key, low.0, low.1, dim)?;
    finite(key, high.0, high.1, dim)?;
    match low.1.iter().zip(high.1).position(|(l, h)| l > h) {
        Some(i) => refuse!("{key}.{}[{i}] is {}, above {}[{i}] = {}", low.0, low.1[i], high.0, high.1[i]),
        None => Ok(()),
    }
}

/// A statistic: f32 as lerobot keeps them, f64 as openpi does.
trait Statistic: Copy + PartialOrd + std::fmt::Display + Into<f64> {}
impl Statistic for f32 {}
impl Statistic for f64 {}

fn finite<T: Statistic>(key: &str, name: &str, values: &[T], dim: usize) -> Result<()> {
    same_length(&format!("{key}.{name}"), values.len(), dim)?;
    match values.iter().position(|&v| !v.into().is_finite()) {
        Some(i) => refuse!("{key}.{name}[{i}] is {}, it must be finite", values[i]),
        None => Ok(()),
    }
}
