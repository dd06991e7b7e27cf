//! Rotary position tables, made once at load for every position a sequence can have.

use half::bf16;

use crate::bundle::{InvFreq, Rope};

/// Fills `cos` and `sin`, `[positions, head_dim / 2]` each.
///
/// The reference divides 1 by the f32 rounding of θ^(2i/d), multiplies by the position in f32, and takes cosine
/// and sine of that f32 angle. Computing the frequency in another order differs in the last bit, which grows to
/// 1e-4 in the cosine at position 800. [`InvFreq::Bf16`] is what a policy run in bfloat16 really uses: its cast
/// rounds the frequencies too.
pub fn write_tables(rope: &Rope, head_dim: usize, cos: &mut [f32], sin: &mut [f32]) {
    let half = head_dim / 2;
    for i in 0..half {
        let power = rope.theta.powf(2.0 * i as f64 / head_dim as f64) as f32;
        let exact = 1.0f32 / power;
        let frequency = match rope.inv_freq {
            InvFreq::F32 => exact,
            InvFreq::Bf16 => bf16::from_f32(exact).to_f32(),
        };
        for (position, (c, s)) in cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half)).enumerate() {
            let angle = f64::from(position as f32 * frequency);
            c[i] = angle.cos() as f32;
            s[i] = angle.sin() as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_zero_does_not_rotate_and_the_first_frequency_is_one() {
        let (mut cos, mut sin) = ([0.0; 12], [0.0; 12]);
        write_tables(&Rope { theta: 10_000.0, inv_freq: InvFreq::F32 }, 8, &mut cos, &mut sin);
        assert_eq!((&cos[..4], &sin[..4]), (&[1.0; 4][..], &[0.0; 4][..]));
        assert_eq!(cos[4], 1f64.cos() as f32);
        assert_eq!(sin[8], 2f64.sin() as f32);
    }

    #[test]
    fn the_bf16_rule_rounds_the_frequency() {
        let table = |inv_freq| {
            let (mut cos, mut sin) = (vec![0.0; 801 * 128], vec![0.0; 801 * 128]);
            write_tables(&Rope { theta: 10_000.0, inv_freq }, 256, &mut cos, &mut sin);
            sin[800 * 128 + 1]
        };
        // Frequency 1 of 128 is 0.930572 in f32 and 0.9296875 in bf16: 0.71 rad apart at position 800.
        assert_eq!(table(InvFreq::Bf16), (800.0f64 * 0.9296875).sin() as f32);
        assert!((table(InvFreq::F32) - table(InvFreq::Bf16)).abs() > 0.1);
    }
}
