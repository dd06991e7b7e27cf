//! Random weights that depend on their place alone.

/// Values of one run of weights: the same for the same key, wherever one begins.
///
/// Uniform with the wanted mean and spread rather than normal: bounded, so that nothing overflows in half precision,
/// and as fast as the disk. The generator is SplitMix64's mixing function over a counter.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: u64,
    mean: f32,
    half_width: f32,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of the run that begins at `offset` of the file `name`.
    pub fn new(seed: u64, name: &str, offset: u64, mean: f64, std: f64) -> Self {
        let name = name.bytes().fold(0, |h, b| mix(h ^ u64::from(b)).wrapping_add(GOLDEN));
        let key = mix(mix(seed.wrapping_add(GOLDEN)) ^ name).wrapping_add(mix(offset ^ GOLDEN));
        Stream { key, mean: mean as f32, half_width: (std * 3f64.sqrt()) as f32 }
    }

    /// Writes the values from number `first` on; `first` must be even.
    pub fn fill(&self, first: u64, values: &mut [f32]) {
        debug_assert!(first.is_multiple_of(2));
        // One draw gives two values.
        for (i, pair) in (first / 2 + 1..).zip(values.chunks_mut(2)) {
            let draw = mix(self.key.wrapping_add(i.wrapping_mul(GOLDEN)));
            for (value, bits) in pair.iter_mut().zip([draw as u32, (draw >> 32) as u32]) {
                // The 24 upper bits, which an f32 holds exactly, as a number in [-1, 1).
                let unit = (bits >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0;
                *value = self.mean + self.half_width * unit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(stream: Stream, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        stream.fill(0, &mut values);
        values
    }

    #[test]
    fn mean_and_spread_are_as_asked_and_bounded() {
        let values = values(Stream::new(0, "a.data", 4096, 1.0, 0.5), 100_000);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance =
            values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.01 && (variance.sqrt() - 0.5).abs() < 0.01, "{mean} {variance}");
        let bound = 0.5 * 3f32.sqrt() + 1e-6;
        assert!(values.iter().all(|v| (v - 1.0).abs() <= bound));
    }

    #[test]
    fn a_value_depends_on_its_place_alone() {
        let stream = Stream::new(3, "a.data", 0, 0.0, 1.0);
        let whole = values(stream, 1001);
        let mut rest = vec![0.0; 1001 - 500];
        stream.fill(500, &mut rest);
        assert_eq!(whole[500..], rest);
        for other in [
            Stream::new(4, "a.data", 0, 0.0, 1.0),
            Stream::new(3, "b.data", 0, 0.0, 1.0),
            Stream::new(3, "a.data", 4096, 0.0, 1.0),
        ] {
            let same = values(other, 1001).iter().zip(&whole).filter(|(a, b)| a == b).count();
            assert!(same < 3, "{same}");
        }
    }

    #[test]
    fn no_spread_is_a_constant() {
        assert!(values(Stream::new(0, "mask", 0, -30000.0, 0.0), 9).iter().all(|&v| v == -30000.0));
    }
}
