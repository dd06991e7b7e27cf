//! Real-time chunking: the arithmetic that ties a new chunk to the rest of the one being executed.
//!
//! While a chunk is computed the robot goes on executing the old one, so the new chunk's first rows are a matter of
//! fact by the time it is ready, and the rows after those ought to join on. Guided RTC pulls each denoise step's
//! estimate of the result towards the old chunk's leftover: with `x0 = x_t − time·v`,
//!
//! ```text
//! v' = v − guidance · W ⊙ (leftover − x0)
//! ```
//!
//! where `W` is one weight a row ([`prefix_weights`]) and `guidance` one number a step ([`guidance_weight`]). This is
//! lerobot's rule; its "Jacobian" is the identity in lerobot's code, so nothing has to be differentiated. Row 0 of
//! the leftover and row 0 of the new chunk are both due at the capture time of the new observation.
//!
//! A policy that was trained for real-time chunking needs no guidance. It takes the rows that will be executed while the
//! chunk is computed as they are, at flow time 0, and makes the rest to fit ([`clean_rows`]).
//!
//! **A word with two meanings.** `execution_horizon` here is lerobot's: the row where guidance ends. The RTC paper
//! and its kinetix code call that `prefix_attention_horizon = H − s`, and mean by execution horizon `s` the rows
//! executed per chunk.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// How guidance falls from the rows that will surely be executed to those that are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrefixSchedule {
    /// 1 for the rows executed while the chunk is computed, 0 after.
    Zeros,
    /// 1 for every row up to the execution horizon.
    Ones,
    /// 1 for the rows executed meanwhile, then falling linearly to 0 at the execution horizon.
    #[default]
    Linear,
    /// As linear, with each weight `w` in the falling part replaced by `w·(e^w − 1)/(e − 1)`.
    Exp,
}

impl PrefixSchedule {
    /// The schedule's name on the command line and in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            PrefixSchedule::Zeros => "zeros",
            PrefixSchedule::Ones => "ones",
            PrefixSchedule::Linear => "linear",
            PrefixSchedule::Exp => "exp",
        }
    }
}

/// What guides one chunk so that it joins the one being executed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance<'a> {
    /// The rest of the chunk being executed, in robot units: rows of `action_dim` values, the first of them due at
    /// the new observation's capture. Fewer rows than a chunk has are padded by holding the last.
    pub previous: &'a [f32],
    /// Each row's weight, from 1 (certain to be executed) to 0 (free): `action_horizon` values, see
    /// [`prefix_weights`].
    pub prefix_weights: &'a [f32],
    /// The upper bound of the guidance weight, see [`guidance_weight`].
    pub max_guidance_weight: f32,
    /// Rows that will be executed before the chunk is ready. A policy trained for real-time chunking keeps these and does
    /// not look at the weights; another one does not look at this.
    pub inference_delay: usize,
}

impl fmt::Display for PrefixSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PrefixSchedule {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        [Self::Zeros, Self::Ones, Self::Linear, Self::Exp]
            .into_iter()
            .find(|schedule| schedule.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("unknown RTC schedule {name:?}; use zeros, ones, linear or exp"))
    }
}

/// Guided RTC's settings, under lerobot's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RtcConfig {
    /// How guidance falls over the rows.
    pub schedule: PrefixSchedule,
    /// The row where guidance ends (lerobot's `execution_horizon`, see the module's words on the name).
    pub execution_horizon: usize,
    /// The upper bound of the guidance weight.
    pub max_guidance_weight: f32,
}

impl Default for RtcConfig {
    /// lerobot's defaults: linear, 10 rows, weight at most 10.
    fn default() -> Self {
        RtcConfig { schedule: PrefixSchedule::Linear, execution_horizon: 10, max_guidance_weight: 10.0 }
    }
}

/// Writes each row's weight: full before `inference_delay`, falling by `schedule`, zero from `end`.
///
/// `end` is `min(execution_horizon, rows of the leftover)`: rows that were never planned must not guide.
pub fn prefix_weights(schedule: PrefixSchedule, inference_delay: usize, end: usize, weights: &mut [f32]) {
    let start = inference_delay.min(end);
    let falling = (end - start) as f64;
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = if i < start {
            1.0
        } else if i >= end {
            0.0
        } else {
            let linear = 1.0 - (i - start + 1) as f64 / (falling + 1.0);
            match schedule {
                PrefixSchedule::Zeros => 0.0,
                PrefixSchedule::Ones => 1.0,
                PrefixSchedule::Linear => linear as f32,
                PrefixSchedule::Exp => (linear * linear.exp_m1() / 1f64.exp_m1()) as f32,
            }
        };
    }
}

/// The guidance weight at flow time `time` (1 is noise, 0 is the action): `(τ² + (1−τ)²) / (τ(1−τ))` with
/// `τ = 1 − time`, at most `max`.
pub fn guidance_weight(time: f64, max: f32) -> f32 {
    let tau = 1.0 - time;
    let weight = (tau * tau + time * time) / (tau * time);
    // At both ends the quotient grows without bound; 0/0 cannot occur, because the numerator is at least 1/2.
    if weight.is_finite() && weight >= 0.0 { (weight as f32).min(max) } else { max }
}

/// How many rows of `planned` ones a policy takes over as they are that was trained with delays of up to `trained` rows.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when the delay is longer than the policy knows, or than what is planned.
pub fn clean_rows(inference_delay: usize, planned: usize, trained: usize) -> Result<usize> {
    let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
    if inference_delay > trained {
        return bad(format!(
            "the inference delay is {inference_delay} rows; this policy was trained for real-time chunking with at most \
             {trained}: take fewer steps, or a longer action period"
        ));
    }
    if inference_delay > planned {
        return bad(format!(
            "the inference delay is {inference_delay} rows, but there are only {planned} previous actions"
        ));
    }
    Ok(inference_delay)
}

/// Copies `leftover` into `out` and repeats its last row to the end. Rows hold `dim` values.
///
/// Held, never zeros: in normalised space a zero is the data set's mean pose, and guidance would pull towards it.
/// Returns how many rows of `out` were really planned, which is what bounds the weights.
///
/// # Panics
/// If `dim` is zero, or either slice is not made of whole rows, or `leftover` has none.
pub fn pad_by_holding(leftover: &[f32], dim: usize, out: &mut [f32]) -> usize {
    assert!(
        dim > 0
            && !leftover.is_empty()
            && leftover.len().is_multiple_of(dim)
            && out.len().is_multiple_of(dim)
    );
    let planned = leftover.len().min(out.len());
    out[..planned].copy_from_slice(&leftover[..planned]);
    let last = &leftover[leftover.len() - dim..];
    out[planned..].chunks_exact_mut(dim).for_each(|row| row.copy_from_slice(last));
    planned / dim
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(schedule: PrefixSchedule, start: usize, end: usize, total: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; total];
        prefix_weights(schedule, start, end, &mut out);
        out
    }

    fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= tolerance, "row {i}: {g} instead of {w} in {got:?}");
        }
    }

    #[test]
    fn weights_are_the_reference_policys() {
        // lerobot's get_prefix_weights(start=4, end=10, total=12), to the digits published.
        let linear = [1.0, 1.0, 1.0, 1.0, 0.857, 0.714, 0.571, 0.429, 0.286, 0.143, 0.0, 0.0];
        let exp = [1.0, 1.0, 1.0, 1.0, 0.677, 0.434, 0.256, 0.134, 0.055, 0.013, 0.0, 0.0];
        assert_close(&weights(PrefixSchedule::Linear, 4, 10, 12), &linear, 5e-4);
        assert_close(&weights(PrefixSchedule::Exp, 4, 10, 12), &exp, 6e-4);
        assert_close(
            &weights(PrefixSchedule::Ones, 4, 10, 12),
            &[[1.0; 10].as_slice(), &[0.0; 2]].concat(),
            0.0,
        );
        assert_close(
            &weights(PrefixSchedule::Zeros, 4, 10, 12),
            &[[1.0; 4].as_slice(), &[0.0; 8]].concat(),
            0.0,
        );
    }

    #[test]
    fn weights_at_the_edges() {
        for schedule in
            [PrefixSchedule::Zeros, PrefixSchedule::Ones, PrefixSchedule::Linear, PrefixSchedule::Exp]
        {
            // A delay beyond the end is cut to the end: every planned row is certain, none falls.
            assert_eq!(weights(schedule, 9, 3, 5), [1.0, 1.0, 1.0, 0.0, 0.0], "{schedule}");
            assert_eq!(weights(schedule, 0, 0, 3), [0.0; 3], "{schedule}: nothing left over, nothing guided");
            // An end beyond the chunk is legal: the weights are those of the rows there are.
            assert_eq!(weights(schedule, 7, 9, 3), [1.0; 3], "{schedule}");
            assert!(weights(schedule, 1, 2, 0).is_empty());
        }
        assert_close(&weights(PrefixSchedule::Linear, 0, 1, 2), &[0.5, 0.0], 0.0);
    }

    #[test]
    fn guidance_is_the_reference_policys_at_ten_steps() {
        let want = [10.0, 9.1111, 4.25, 2.7619, 2.1667, 2.0, 2.1667, 2.7619, 4.25, 9.1111];
        for (k, want) in want.into_iter().enumerate() {
            // The time as the schedule carries it: f64 arithmetic rounded to f32.
            let time = f64::from((1.0 - k as f64 / 10.0) as f32);
            let got = guidance_weight(time, 10.0);
            assert!((got - want).abs() < 5e-5, "step {k}: {got} instead of {want}");
        }
        assert_eq!(guidance_weight(0.1, 5.0), 5.0, "capped");
        assert_eq!(guidance_weight(1.0, 10.0), 10.0, "pure noise: the cap");
        assert_eq!(guidance_weight(0.0, 10.0), 10.0);
        assert_eq!(guidance_weight(0.5, 0.0), 0.0, "a cap of zero turns guidance off");
    }

    #[test]
    fn a_delay_longer_than_trained_is_refused_in_words() {
        assert_eq!(clean_rows(0, 1, 4).unwrap(), 0);
        assert_eq!(clean_rows(4, 4, 4).unwrap(), 4);
        let longer = clean_rows(5, 9, 4).unwrap_err().to_string();
        assert!(longer.contains("5 rows") && longer.contains("at most 4"), "{longer}");
        assert!(clean_rows(3, 2, 4).unwrap_err().to_string().contains("only 2 previous actions"));
    }

    #[test]
    fn a_short_leftover_is_held_and_a_long_one_is_cut() {
        let leftover = [1.0, -1.0, 2.0, -2.0];
        let mut out = [f32::NAN; 8];
        assert_eq!(pad_by_holding(&leftover, 2, &mut out), 2);
        assert_eq!(out, [1.0, -1.0, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0]);
        let mut out = [f32::NAN; 2];
        assert_eq!(pad_by_holding(&leftover, 2, &mut out), 1);
        assert_eq!(out, [1.0, -1.0]);
    }

    /// lerobot#4454: zeros behind a short leftover lay inside the guided rows and decoded to the data set's mean, so
    /// an arm at 95 was sent to 103 and back. Held rows keep it at 95, and rows never planned carry no weight at all.
    #[test]
    fn lerobot_4454_a_short_leftover_does_not_pull_towards_the_mean() {
        let (mean, std) = (103.0f32, 4.0f32);
        let mut leftover = [f32::NAN; 10];
        let planned = pad_by_holding(&[95.0; 2], 1, &mut leftover);
        assert_eq!(planned, 2);
        let w = weights(PrefixSchedule::Linear, 4, 10.min(planned), 10);
        // One guided correction of a chunk that already lies at 95, in normalised space.
        for (row, (target, weight)) in leftover.iter().zip(&w).enumerate() {
            let pulled_to = (target - mean) / std;
            let x0 = (95.0 - mean) / std;
            assert_eq!(weight * (pulled_to - x0), 0.0, "row {row}");
            assert_eq!(*weight > 0.0, row < planned);
        }
    }

    #[test]
    fn names_parse_and_unknown_ones_say_what_there_is() {
        for schedule in
            [PrefixSchedule::Zeros, PrefixSchedule::Ones, PrefixSchedule::Linear, PrefixSchedule::Exp]
        {
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
            assert_eq!(schedule.to_string().to_uppercase().parse(), Ok(schedule));
        }
        assert!("cosine".parse::<PrefixSchedule>().unwrap_err().contains("zeros, ones, linear or exp"));
    }

    proptest! {
        #[test]
        fn weights_never_rise_and_stay_in_range(
            which in 0usize..4, start in 0usize..60, end in 0usize..60, total in 0usize..60,
        ) {
            let schedule =
                [PrefixSchedule::Zeros, PrefixSchedule::Ones, PrefixSchedule::Linear, PrefixSchedule::Exp][which];
            let w = weights(schedule, start, end, total);
            prop_assert!(w.iter().all(|w| (0.0..=1.0).contains(w)));
            prop_assert!(w.windows(2).all(|w| w[0] >= w[1]));
            prop_assert!(w.iter().skip(end).all(|w| *w == 0.0));
            prop_assert!(w.iter().take(start.min(end)).all(|w| *w == 1.0));
        }

        #[test]
        fn guidance_is_finite_and_capped(time in 0.0..=1.0f64, max in 0.0..100.0f32) {
            let g = guidance_weight(time, max);
            prop_assert!((0.0..=max).contains(&g));
        }
    }
}
