//! The bound on how far a joint may move from one control tick to the next.

/// Follows target values by at most one step a tick, and trips when it has had to hold back too often in a row.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    /// Per joint, in robot units; infinity: no limit.
    steps: Box<[f32]>,
    /// The ticks in a row that may be held back before it trips; 0: never trips.
    trip_after: u32,
    held_back: u32,
}

impl Limiter {
    pub(super) fn new(steps: Box<[f32]>, trip_after: u32) -> Self {
        Limiter { steps, trip_after, held_back: 0 }
    }

    /// Sets the limits. False, and nothing done, if the number is wrong or one of them is not positive.
    pub(super) fn set_steps(&mut self, steps: &[f32]) -> bool {
        // Written so that NaN fails too.
        let fits = steps.len() == self.steps.len() && steps.iter().all(|step| *step > 0.0);
        if fits {
            self.steps.copy_from_slice(steps);
        }
        fits
    }

    /// Moves `value` towards `target`. Returns true if some joint had to be held back.
    #[inline]
    pub(super) fn follow(&mut self, value: &mut [f32], target: &[f32]) -> bool {
        let mut clamped = false;
        for ((value, &target), &step) in value.iter_mut().zip(target).zip(&self.steps) {
            let (next, held) = step_towards(*value, target, step);
            *value = next;
            clamped |= held;
        }
        self.held_back = if clamped { self.held_back.saturating_add(1) } else { 0 };
        clamped
    }

    /// Returns true once it was held back too often in a row.
    #[inline]
    pub(super) fn tripped(&self) -> bool {
        self.trip_after > 0 && self.held_back >= self.trip_after
    }

    /// Forgets that joints were held back.
    pub(super) fn reset(&mut self) {
        self.held_back = 0;
    }
}

/// Returns the value at most `step` from `from` on the way to `to`, and true if it falls short of `to`.
///
/// The bound holds for the f32 numbers that come out, not only up to rounding.
#[inline]
fn step_towards(from: f32, to: f32, step: f32) -> (f32, bool) {
    // In f64 the distance of two f32 numbers is exact where it is near the limit.
    let (a, limit) = (f64::from(from), f64::from(step));
    let distance = f64::from(to) - a;
    if distance.abs() <= limit {
        return (to, false);
    }
    let mut next = (a + limit.copysign(distance)) as f32;
    if (f64::from(next) - a).abs() > limit {
        // Rounding went outwards: one number back.
        next = if distance > 0.0 { next.next_down() } else { next.next_up() };
    }
    // A target that is not a number compares false above and must not move anything.
    (if distance.is_nan() { from } else { next }, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_within_reach_are_met_exactly_and_others_step_by_step() {
        let mut limiter = Limiter::new([0.1, 10.0].into(), 0);
        let mut value = [0.0, 0.0];
        assert!(limiter.follow(&mut value, &[0.35, 5.0]));
        assert_eq!(value, [0.1, 5.0]);
        assert!(limiter.follow(&mut value, &[0.35, 5.0]));
        assert!(limiter.follow(&mut value, &[0.35, 5.0]));
        assert!(!limiter.follow(&mut value, &[0.35, 5.0]));
        assert_eq!(value, [0.35, 5.0]);
        assert!(!limiter.follow(&mut value, &[0.3, -5.0]));
        assert_eq!(value, [0.3, -5.0]);
    }

    #[test]
    fn only_holding_back_in_a_row_trips() {
        let mut limiter = Limiter::new([1.0].into(), 3);
        let mut value = [0.0];
        for _ in 0..5 {
            limiter.follow(&mut value, &[100.0]);
            limiter.follow(&mut value, &[100.0]);
            assert!(!limiter.tripped());
            let here = value;
            limiter.follow(&mut value, &here);
        }
        (0..3).for_each(|_| assert!(limiter.follow(&mut value, &[100.0])));
        assert!(limiter.tripped());
        limiter.reset();
        assert!(!limiter.tripped());
        let mut never = Limiter::new([1.0].into(), 0);
        (0..10_000).for_each(|_| assert!(never.follow(&mut value, &[1e9])));
        assert!(!never.tripped());
    }

    #[test]
    fn no_limit_follows_at_once_and_nan_moves_nothing() {
        let mut value = [0.0];
        assert!(!Limiter::new([f32::INFINITY].into(), 1).follow(&mut value, &[1e30]));
        assert_eq!(value, [1e30]);
        let mut value = [2.0];
        for step in [0.5, f32::INFINITY] {
            assert!(Limiter::new([step].into(), 1).follow(&mut value, &[f32::NAN]));
            assert_eq!(value, [2.0]);
        }
    }

    #[test]
    fn limits_can_be_changed_but_not_to_nonsense() {
        let mut limiter = Limiter::new([1.0, 1.0].into(), 0);
        for nonsense in [&[1.0][..], &[1.0, 0.0], &[f32::NAN, 1.0], &[-1.0, 1.0]] {
            assert!(!limiter.set_steps(nonsense), "{nonsense:?}");
        }
        assert!(limiter.set_steps(&[0.25, f32::INFINITY]));
        let mut value = [0.0, 0.0];
        assert!(limiter.follow(&mut value, &[9.0, 9.0]));
        assert_eq!(value, [0.25, 9.0]);
    }

    fn any_finite() -> impl Strategy<Value = f32> {
        prop_oneof![any::<f32>().prop_filter("finite", |v| v.is_finite()), -10.0f32..10.0, -1e6f32..1e6]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn the_bound_holds_for_the_numbers_that_come_out(
            from in any_finite(), to in any_finite(), step in prop_oneof![0.0f32..1.0, 0.0f32..1e30, Just(0.0)],
        ) {
            let (next, held) = step_towards(from, to, step);
            prop_assert!((f64::from(next) - f64::from(from)).abs() <= f64::from(step));
            prop_assert!(next >= from.min(to) && next <= from.max(to), "{} left [{}, {}]", next, from, to);
            prop_assert_eq!(held, next != to || (f64::from(to) - f64::from(from)).abs() > f64::from(step));
        }
    }
}
