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
//! A policy that was trained for real-time chunking needs no guidance. It takes the rows that will be executed while
//! the chunk is computed as they are, at flow time 0, and makes the rest to fit ([`action_prefix_len`]).
//!
//! **A word with two meanings.** `execution_horizon` here is lerobot's: the row where guidance ends. The RTC paper
//! and its kinetix code call that `prefix_attention_horizon = H − s`, and mean by execution horizon `s` the rows
//! executed per chunk.

use crate::error::Result;

/// The way guidance falls from the rows that will surely be executed to those that are free.
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

words!(PrefixSchedule, "RTC schedule", str::eq_ignore_ascii_case, { Zeros => "zeros", Ones => "ones", Linear => "linear", Exp => "exp" });

/// The plan that one chunk is guided by, so that it joins the one being executed.
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
    /// Rows that will be executed before the chunk is ready. A policy trained for real-time chunking keeps these and
    /// does not look at the weights; another one does not look at this.
    pub inference_delay: usize,
}

/// Guided RTC's settings, under lerobot's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RtcConfig {
    /// The way guidance falls over the rows.
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

/// Returns the rows that a policy trained for real-time chunking takes over as they are: the action prefix, as long as
/// the inference delay. `planned` rows are there, and the policy was trained with delays of up to `trained` rows.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when the delay is longer than the policy knows, or
/// than what is planned.
pub fn action_prefix_len(inference_delay: usize, planned: usize, trained: usize) -> Result<usize> {
    ensure!(
        inference_delay <= trained,
        InvalidArgument,
        "the inference delay is {inference_delay} rows; this policy was trained for real-time chunking with at most \
         {trained}: take fewer steps, or a longer action period"
    );
    ensure!(
        inference_delay <= planned,
        InvalidArgument,
        "the inference delay is {inference_delay} rows, but there are only {planned} previous actions"
    );
    Ok(inference_delay)
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
        assert_eq!(action_prefix_len(0, 1, 4).unwrap(), 0);
        assert_eq!(action_prefix_len(4, 4, 4).unwrap(), 4);
        let longer = action_prefix_len(5, 9, 4).unwrap_err().to_string();
        assert!(longer.contains("5 rows") && longer.contains("at most 4"), "{longer}");
        assert!(action_prefix_len(3, 2, 4).unwrap_err().to_string().contains("only 2 previous actions"));
    }

    #[test]
    fn names_parse_and_unknown_ones_say_what_there_is() {
        for schedule in
            [PrefixSchedule::Zeros, PrefixSchedule::Ones, PrefixSchedule::Linear, PrefixSchedule::Exp]
        {
            assert_eq!(schedule.to_string().parse::<PrefixSchedule>().unwrap(), schedule);
            assert_eq!(schedule.to_string().to_uppercase().parse::<PrefixSchedule>().unwrap(), schedule);
        }
        let error = "cosine".parse::<PrefixSchedule>().unwrap_err().to_string();
        assert!(error.contains("zeros, ones, linear and exp"), "{error}");
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
