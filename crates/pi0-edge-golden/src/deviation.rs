//! The distance between an output and the reference's.

use pi0_edge::{Error, ErrorKind, Result};

/// The distance between outputs and what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// The largest `|got - want|`; infinite if a value of either is not finite.
    pub max_abs: f64,
    /// The largest `|want|`.
    pub max_expected: f64,
    /// `max_abs / max_expected`. 0 where both are 0.
    pub relative: f64,
    /// Euclidean length of `got - want` as a share of that of `want`. 0 where both are 0.
    pub relative_l2: f64,
    /// Cosine of the angle between the two as vectors: 1 where the directions agree, whatever the lengths. 1 where both
    /// are zero, 0 where one is or a value is not finite.
    pub cosine: f64,
}

impl Deviation {
    /// Returns true if the deviation is at most `tolerance` of the largest expected magnitude.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.max_abs <= tolerance * self.max_expected
    }

    /// Combines two parts of one stage, such as layers, into the worse: the larger relative error with its magnitudes,
    /// the larger relative length, and the smaller cosine.
    pub fn worst(self, other: Deviation) -> Self {
        let larger = if other.relative > self.relative { other } else { self };
        let relative_l2 = self.relative_l2.max(other.relative_l2);
        Deviation { relative_l2, cosine: self.cosine.min(other.cosine), ..larger }
    }
}

/// Compares every `stride`-th element of `got` with `want`, which was sampled that way. A NaN or an infinity on either
/// side is an infinite deviation.
///
/// # Errors
///
/// [`ErrorKind::Parity`] if the number of sampled elements is not that of `want`.
pub fn compare(got: &[f32], want: &[f32], stride: usize) -> Result<Deviation> {
    let sampled = got.iter().step_by(stride.max(1));
    if sampled.len() != want.len() {
        let (all, some, wanted) = (got.len(), sampled.len(), want.len());
        let text = format!(
            "{all} values sampled at every {stride} are {some}, the reference has {wanted}; the golden outputs belong \
             to another model"
        );
        return Err(Error::new(ErrorKind::Parity, text));
    }
    let (mut max_abs, mut max_expected) = (0f64, 0f64);
    // Squares of f32 values fit f64 with room for any number of them.
    let (mut dot, mut got_squared, mut want_squared, mut off_squared) = (0f64, 0f64, 0f64, 0f64);
    for (&got, &want) in sampled.zip(want) {
        let (got, want) = (f64::from(got), f64::from(want));
        let difference = got - want;
        // `f64::max` would pass over a NaN.
        max_abs = max_abs.max(if difference.is_finite() { difference.abs() } else { f64::INFINITY });
        max_expected = max_expected.max(if want.is_finite() { want.abs() } else { 0.0 });
        dot += got * want;
        off_squared += difference * difference;
        got_squared += got * got;
        want_squared += want * want;
    }
    let relative = if max_abs == 0.0 { 0.0 } else { max_abs / max_expected };
    let cosine = match (got_squared, want_squared) {
        (0.0, 0.0) => 1.0,
        // `f64::min` would make a 1 of a NaN.
        _ => (dot / (got_squared * want_squared).sqrt()).clamp(-1.0, 1.0),
    };
    let relative_l2 = if off_squared == 0.0 { 0.0 } else { (off_squared / want_squared).sqrt() };
    let relative_l2 = if relative_l2.is_nan() { f64::INFINITY } else { relative_l2 };
    let cosine = if cosine.is_finite() { cosine } else { 0.0 };
    Ok(Deviation { max_abs, max_expected, relative, relative_l2, cosine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_relative_to_the_largest_expected() {
        let d = compare(&[1.0, 9.0, -4.5, 9.0, 2.0], &[1.0, -4.0, 2.0], 2).unwrap();
        assert_eq!((d.max_abs, d.max_expected, d.relative), (0.5, 4.0, 0.125));
        assert!(d.is_within(0.125) && !d.is_within(0.1));
        assert_eq!(compare(&[3.0, 4.0, 1.0], &[3.0, 4.0, 0.0], 1).unwrap().relative_l2, 0.2);
    }

    #[test]
    fn cosine_sees_directions_and_not_lengths() {
        let cosine = |got: &[f32], want: &[f32]| compare(got, want, 1).unwrap().cosine;
        assert_eq!(cosine(&[3.0, 4.0], &[3.0, 4.0]), 1.0);
        assert_eq!(cosine(&[6.0, 8.0], &[3.0, 4.0]), 1.0);
        assert_eq!(cosine(&[-3.0, -4.0], &[3.0, 4.0]), -1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert!((cosine(&[4.0, 3.0], &[3.0, 4.0]) - 0.96).abs() < 1e-12);
        assert_eq!(cosine(&[0.0, 0.0], &[3.0, 4.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 0.0]), 1.0);
        assert_eq!(cosine(&[f32::NAN, 4.0], &[3.0, 4.0]), 0.0);
        // Sums of squares that f32 could not hold.
        assert_eq!(cosine(&[3e38, 3e38], &[3e38, 3e38]), 1.0);
    }

    #[test]
    fn equal_zeros_are_within_any_tolerance() {
        let d = compare(&[0.0; 3], &[0.0; 3], 1).unwrap();
        assert_eq!(
            d,
            Deviation { max_abs: 0.0, max_expected: 0.0, relative: 0.0, relative_l2: 0.0, cosine: 1.0 }
        );
        assert!(d.is_within(1e-9));
        let off = compare(&[1e-9], &[0.0], 1).unwrap();
        assert!(off.relative.is_infinite() && !off.is_within(1.0));
    }

    #[test]
    fn a_value_that_is_not_finite_never_passes() {
        for (got, want) in
            [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::NAN, f32::NAN)]
        {
            let d = compare(&[1.0, got], &[1.0, want], 1).unwrap();
            assert!(d.relative_l2.is_infinite());
            assert!(d.max_abs.is_infinite() && !d.is_within(1e30) && d.cosine == 0.0, "{got} {want}");
            assert!(!d.worst(compare(&[1.0], &[1.0], 1).unwrap()).is_within(1.0));
        }
    }

    #[test]
    fn the_worst_of_two_parts_has_the_worse_of_each() {
        let near = compare(&[1.0, 0.0], &[1.0, 0.1], 1).unwrap();
        let scaled = compare(&[2.0, 0.0], &[1.0, 0.0], 1).unwrap();
        let worst = near.worst(scaled);
        assert_eq!((worst.max_abs, worst.relative, worst.cosine), (1.0, 1.0, near.cosine));
        assert_eq!(worst, scaled.worst(near));
    }

    #[test]
    fn another_length_is_an_error() {
        assert_eq!(compare(&[1.0; 4], &[1.0; 3], 1).unwrap_err().kind(), ErrorKind::Parity);
        assert!(compare(&[1.0; 5], &[1.0; 3], 2).is_ok());
    }
}
