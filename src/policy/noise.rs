//! The flow's starting point.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// The source of a chunk's noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise<'a> {
    /// Standard normal values from this seed. The same seed gives the same values on every machine.
    Seed(u64),
    /// The values themselves, `[action_horizon, padded action width]`, row-major.
    Given(&'a [f32]),
}

/// Fills `x_t` with standard normal values from `seed` (ChaCha8, ziggurat).
pub(super) fn fill(seed: u64, x_t: &mut [f32]) {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    for (value, sample) in x_t.iter_mut().zip(StandardNormal.sample_iter(&mut generator)) {
        *value = sample;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence_and_it_is_standard_normal() {
        let draw = |seed| {
            let mut x = vec![0.0f32; 20_000];
            fill(seed, &mut x);
            x
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let x = draw(1);
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
