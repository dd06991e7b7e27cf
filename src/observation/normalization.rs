//! Per-entry maps between robot units and model units.
//!
//! Each is computed with the operations of the policy's own normalizer in their order and precision: the results are to
//! be equal, not merely close, and addition of floats does not associate. lerobot's are in f32, openpi's in f64.

use crate::bundle::Normalization;

/// A normalization with its divisors worked out.
#[derive(Debug, Clone)]
pub struct Normalizer {
    map: Map,
}

#[derive(Debug, Clone)]
enum Map {
    Identity,
    /// `(x - mean) / (std + eps)`, and back `y * std + mean`.
    MeanStd {
        mean: Vec<f32>,
        std: Vec<f32>,
        divisor: Vec<f32>,
    },
    /// `2 (x - low) / span - 1`; the two kinds of it differ in the way back.
    Span {
        low: Vec<f32>,
        span: Vec<f32>,
        back: Back,
    },
    /// `(x - mean) / divisor` in f64, and back `y * divisor + mean`.
    ZScore {
        mean: Vec<f64>,
        divisor: Vec<f64>,
    },
    /// `(x - low) / span * 2 - 1` in f64, and back `(y + 1) / 2 * span + low`.
    QuantileRange {
        low: Vec<f64>,
        span: Vec<f64>,
    },
}

#[derive(Debug, Clone, Copy)]
enum Back {
    /// `(y + 1) / 2 * span + low`.
    HalveFirst,
    /// `(y + 1) * span / 2 + low`.
    ScaleFirst,
}

impl Normalizer {
    /// Makes the map of a validated rule.
    pub fn new(rule: &Normalization) -> Self {
        let span = |low: &[f32], high: &[f32], eps: f64, back| Map::Span {
            low: low.to_vec(),
            span: low
                .iter()
                .zip(high)
                .map(|(low, high)| high - low)
                .map(|span| if span == 0.0 { eps as f32 } else { span })
                .collect(),
            back,
        };
        let map = match rule {
            Normalization::Identity { .. } => Map::Identity,
            Normalization::MeanStd { eps, mean, std } => Map::MeanStd {
                mean: mean.clone(),
                std: std.clone(),
                divisor: std.iter().map(|std| std + *eps as f32).collect(),
            },
            Normalization::MinMax { eps, min, max } => span(min, max, *eps, Back::HalveFirst),
            Normalization::Quantiles { eps, q01, q99 } => span(q01, q99, *eps, Back::ScaleFirst),
            Normalization::Quantile10 { eps, q10, q90 } => span(q10, q90, *eps, Back::ScaleFirst),
            Normalization::ZScore { eps, mean, std } => {
                Map::ZScore { mean: mean.clone(), divisor: std.iter().map(|std| std + eps).collect() }
            }
            Normalization::QuantileRange { eps, q01, q99 } => Map::QuantileRange {
                low: q01.clone(),
                span: q01.iter().zip(q99).map(|(low, high)| high - low + eps).collect(),
            },
        };
        Normalizer { map }
    }

    /// Maps `values` from robot units to model units, in place. The slice has the feature's length.
    pub fn forward(&self, values: &mut [f32]) {
        match &self.map {
            Map::Identity => {}
            Map::MeanStd { mean, divisor, .. } => {
                each(values, mean, divisor, |x, mean, divisor| (x - mean) / divisor)
            }
            Map::Span { low, span, .. } => {
                each(values, low, span, |x, low, span| 2.0 * (x - low) / span - 1.0)
            }
            Map::ZScore { mean, divisor } => {
                each(values, mean, divisor, |x, mean, divisor| ((f64::from(x) - mean) / divisor) as f32)
            }
            Map::QuantileRange { low, span } => {
                each(values, low, span, |x, low, span| rounded_down((f64::from(x) - low) / span * 2.0 - 1.0))
            }
        }
    }

    /// Maps model units to robot units: `dst[i]` from `src[i]`. The slices have the feature's length.
    pub fn inverse(&self, src: &[f32], dst: &mut [f32]) {
        dst.copy_from_slice(src);
        match &self.map {
            Map::Identity => {}
            Map::MeanStd { mean, std, .. } => each(dst, mean, std, |y, mean, std| y * std + mean),
            Map::Span { low, span, back: Back::HalveFirst } => {
                each(dst, low, span, |y, low, span| (y + 1.0) / 2.0 * span + low)
            }
            Map::Span { low, span, back: Back::ScaleFirst } => {
                each(dst, low, span, |y, low, span| (y + 1.0) * span / 2.0 + low)
            }
            Map::ZScore { mean, divisor } => {
                each(dst, mean, divisor, |y, mean, divisor| (f64::from(y) * divisor + mean) as f32)
            }
            // The first two operations are between an f32 and a number of no precision of its own.
            Map::QuantileRange { low, span } => {
                each(dst, low, span, |y, low, span| (f64::from((y + 1.0) / 2.0) * span + low) as f32)
            }
        }
    }
}

/// Maps each entry by its two statistics.
fn each<T: Copy>(values: &mut [f32], a: &[T], b: &[T], map: impl Fn(f32, T, T) -> f32) {
    for ((value, &a), &b) in values.iter_mut().zip(a).zip(b) {
        *value = map(*value, a, b);
    }
}

/// Returns the largest f32 that is not above `value`. PI0.5's state goes into bins that begin at f32 values: rounded down, a
/// value is in the bin that it is in as an f64.
fn rounded_down(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) > value { nearest.next_down() } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes() -> Vec<Normalization> {
        let (low, high) = (vec![-1.5, 0.0, 3.0], vec![2.5, 0.1, 1e3]);
        vec![
            Normalization::Identity { eps: 1e-8 },
            Normalization::MeanStd { eps: 1e-8, mean: vec![0.25, -3.0, 7.0], std: vec![0.5, 2.0, 1e-3] },
            Normalization::MinMax { eps: 1e-8, min: low.clone(), max: high.clone() },
            Normalization::Quantiles { eps: 1e-8, q01: low.clone(), q99: high.clone() },
            Normalization::Quantile10 { eps: 1e-8, q10: low, q90: high },
            Normalization::ZScore { eps: 1e-6, mean: vec![0.25, -3.0, 7.0], std: vec![0.5, 2.0, 1e-3] },
            Normalization::QuantileRange { eps: 1e-6, q01: vec![-1.5, 0.0, 3.0], q99: vec![2.5, 0.1, 1e3] },
        ]
    }

    #[test]
    fn inverse_undoes_forward() {
        for mode in modes() {
            let normalizer = Normalizer::new(&mode);
            let x = [0.7, 0.04, 7.5];
            let (mut y, mut back) = (x, [0.0; 3]);
            normalizer.forward(&mut y);
            normalizer.inverse(&y, &mut back);
            for (a, b) in x.iter().zip(back) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{mode:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn known_values() {
        let x = [0.75, -1.0, 7.5];
        let expected: [[f32; 3]; 7] = [
            x,
            [1.0, 1.0, 0.5 / 1e-3],
            [0.125, -21.0, -0.990_972_9],
            [0.125, -21.0, -0.990_972_9],
            [0.125, -21.0, -0.990_972_9],
            [0.5 / 0.500_001, 2.0 / 2.000_001, 0.5 / 1.001e-3],
            [2.25 / 4.000_001 * 2.0 - 1.0, -1.0 / 0.100_001 * 2.0 - 1.0, -0.990_972_9],
        ];
        for (mode, expected) in modes().iter().zip(expected) {
            let mut y = x;
            Normalizer::new(mode).forward(&mut y);
            for (y, e) in y.iter().zip(expected) {
                assert!((y - e).abs() <= 2e-5 * e.abs(), "{mode:?}: {y} {e}");
            }
        }
    }

    #[test]
    fn a_quantile_range_never_lifts_a_value_into_the_next_bin() {
        let rule = Normalization::QuantileRange { eps: 1e-6, q01: vec![-0.3], q99: vec![1.7] };
        let normalizer = Normalizer::new(&rule);
        let mut apart = 0;
        for i in 0..100_000 {
            let x = -0.3 + i as f32 * 2e-5;
            let mut y = [x];
            normalizer.forward(&mut y);
            let exact = (f64::from(x) - -0.3) / (1.7 - -0.3 + 1e-6) * 2.0 - 1.0;
            assert!(f64::from(y[0]) <= exact && f64::from(y[0].next_up()) > exact, "{x}: {} {exact}", y[0]);
            apart += usize::from(y[0] != exact as f32);
        }
        assert!(apart > 1000, "rounding down differed from rounding {apart} times");
    }

    #[test]
    fn a_deviation_or_span_of_zero_is_divided_by_eps() {
        let mut y = [1.5];
        Normalizer::new(&Normalization::MeanStd { eps: 1e-8, mean: vec![1.0], std: vec![0.0] })
            .forward(&mut y);
        assert_eq!(y, [0.5f32 / 1e-8f32]);
        let constant = Normalizer::new(&Normalization::MinMax { eps: 1e-8, min: vec![2.0], max: vec![2.0] });
        y = [2.0];
        constant.forward(&mut y);
        assert_eq!(y, [-1.0]);
        let mut x = [0.0];
        constant.inverse(&y, &mut x);
        assert_eq!(x, [2.0]);
    }

    #[test]
    fn the_two_spans_round_in_their_own_order() {
        // With numbers at the edge of f32, only the right order of operations stays finite.
        let big = f32::MAX / 2.0;
        let mut x = [0.0];
        Normalizer::new(&Normalization::MinMax { eps: 1e-8, min: vec![0.0], max: vec![big] })
            .inverse(&[3.0], &mut x);
        assert_eq!(x, [f32::MAX]);
        Normalizer::new(&Normalization::Quantiles { eps: 1e-8, q01: vec![0.0], q99: vec![big] })
            .inverse(&[3.0], &mut x);
        assert!(x[0].is_infinite());
    }
}
