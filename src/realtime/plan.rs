//! The two clocks of a plan: the control loop's ticks, and the time that was really spent executing.

use super::clock::Timestamp;

/// Counts control ticks and gives them times free of jitter.
///
/// A loop that runs at the action rate reads a little early or late each time; dividing those times by the period
/// would execute one row twice and skip the next. So time is counted in whole ticks: a read that comes within half a
/// period of when it is due is that tick. The due time follows the loop's own pace slowly, so that a loop whose period
/// is not quite the configured one does not slide into the doubtful middle.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    period: u64,
    /// The time the current tick was due; none before the first.
    due: Option<Timestamp>,
    tick: u64,
}

impl Grid {
    pub(super) fn new(period: u64) -> Self {
        Grid { period, due: None, tick: 0 }
    }

    /// Returns the number of ticks that have passed since the last call, as of `now`; 1 on the first.
    #[inline]
    pub(super) fn advance(&mut self, now: Timestamp) -> u64 {
        let Some(due) = self.due else {
            self.due = Some(now);
            return 1;
        };
        let ticks = (now.since(due).saturating_add(self.period / 2)) / self.period;
        if ticks > 0 {
            let exact = due.plus(ticks.saturating_mul(self.period));
            // An eighth of how late or early this read was.
            let due = exact.plus(now.since(exact) / 8).as_nanos() - exact.since(now) / 8;
            self.due = Some(Timestamp::from_nanos(due));
            self.tick = self.tick.saturating_add(ticks);
        }
        ticks
    }

    /// Returns the number of the current tick, from 0.
    #[inline]
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// Returns the time of the current tick on the grid, from 0.
    #[inline]
    pub(super) fn time(&self) -> i64 {
        signed(self.tick.saturating_mul(self.period))
    }

    /// Returns the grid time of the tick nearest to `then`.
    #[inline]
    pub(super) fn time_of(&self, then: Timestamp) -> i64 {
        let due = self.due.unwrap_or(then);
        let whole =
            |distance: u64| signed(distance.saturating_add(self.period / 2) / self.period * self.period);
        self.time() - whole(due.since(then)) + whole(then.since(due))
    }
}

/// Returns nanoseconds as a signed number, cut off at 36 years so that sums of a few of them cannot overflow.
#[inline]
fn signed(nanos: u64) -> i64 {
    nanos.min(1 << 60) as i64
}

/// A moment at which execution stopped or went on.
#[derive(Debug, Clone, Copy)]
struct Knot {
    at: i64,
    /// Time lost up to `at`.
    lost: i64,
    motion: Motion,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Motion {
    /// Executing at full pace.
    Running,
    /// Coming to rest evenly over this many nanoseconds, and at rest from then on.
    Stopping { ramp: i64 },
}

/// The number of changes of pace that are remembered. Time before them is taken as time at rest, so that a chunk whose observation
/// is older still starts too early in its plan, never too late.
pub(super) const KNOTS: usize = 8;

/// Time spent executing, as opposed to time passed: it stands still while the robot holds.
///
/// A chunk says what to do from the moment of its observation on. How far into it the robot is by the time the chunk
/// arrives is how much it has executed since that moment, not how much time has passed: a robot that stood still
/// meanwhile, at the start or after an underrun, must begin at the beginning (lerobot#4223, lerobot#4454).
#[derive(Debug, Clone)]
pub(super) struct PlanClock {
    /// The newest is at `newest`, older ones before it, cyclically.
    knots: [Knot; KNOTS],
    newest: usize,
}

impl PlanClock {
    /// Creates a plan that has been at rest for ever.
    pub(super) fn new() -> Self {
        let ever = Knot { at: i64::MIN / 4, lost: 0, motion: Motion::Stopping { ramp: 0 } };
        PlanClock { knots: [ever; KNOTS], newest: 0 }
    }

    /// Returns the time lost to holding, as of grid time `at`.
    fn lost(&self, at: i64) -> i64 {
        for age in 0..KNOTS {
            let knot = &self.knots[(self.newest + KNOTS - age) % KNOTS];
            if knot.at <= at {
                return knot.lost + knot.motion.lost_after(at - knot.at);
            }
        }
        let oldest = &self.knots[(self.newest + 1) % KNOTS];
        at - (oldest.at - oldest.lost)
    }

    /// Returns the time spent executing, as of grid time `at`, from an arbitrary origin.
    #[inline]
    pub(super) fn played(&self, at: i64) -> i64 {
        at - self.lost(at)
    }

    fn push(&mut self, at: i64, motion: Motion) {
        // Never before the newest knot, so that time played does not go back.
        let at = at.max(self.knots[self.newest].at);
        let lost = self.lost(at);
        self.newest = (self.newest + 1) % KNOTS;
        self.knots[self.newest] = Knot { at, lost, motion };
    }

    /// Comes to rest from grid time `at` on, over `ramp` nanoseconds.
    pub(super) fn stop(&mut self, at: i64, ramp: i64) {
        self.push(at, Motion::Stopping { ramp });
    }

    /// Executes at full pace from grid time `at` on.
    pub(super) fn resume(&mut self, at: i64) {
        self.push(at, Motion::Running);
    }

    /// Returns true unless stopped or stopping.
    #[inline]
    pub(super) fn running(&self) -> bool {
        self.knots[self.newest].motion == Motion::Running
    }

    /// Returns true if there was motion after `since` and up to `at`, the moment of the latest change at most. A stop at `at`
    /// itself is none, unless it has a ramp.
    #[inline]
    pub(super) fn moved(&self, since: i64, at: i64) -> bool {
        let knot = &self.knots[self.newest];
        match knot.motion {
            Motion::Running => true,
            Motion::Stopping { ramp } => knot.at.saturating_add(ramp) > since && (ramp > 0 || knot.at < at),
        }
    }

    /// Returns true once a stop is complete.
    #[inline]
    pub(super) fn at_rest(&self, at: i64) -> bool {
        let knot = &self.knots[self.newest];
        matches!(knot.motion, Motion::Stopping { ramp } if at - knot.at >= ramp)
    }
}

impl Motion {
    /// Returns the time lost in the first `after` nanoseconds.
    fn lost_after(self, after: i64) -> i64 {
        match self {
            Motion::Running => 0,
            // The pace falls linearly from 1 to 0, so what is lost grows with the square; half the ramp in all.
            Motion::Stopping { ramp } if after < ramp => {
                (i128::from(after) * i128::from(after) / (2 * i128::from(ramp))) as i64
            }
            // Rounded to what the line above comes to at the ramp's end.
            Motion::Stopping { ramp } => after - (ramp - ramp / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn at(ms: f64) -> Timestamp {
        Timestamp::from_nanos((1_000.0 * 1e6 + ms * 1e6) as u64)
    }

    #[test]
    fn jitter_below_half_a_period_neither_skips_nor_repeats_a_tick() {
        let mut grid = Grid::new(20 * MS);
        assert_eq!(grid.advance(at(0.0)), 1);
        for i in 1..1000u64 {
            // Late, early, late by a third of the period.
            let jitter = [6.5, -6.5, 3.0, -1.0, 0.0][i as usize % 5];
            assert_eq!(grid.advance(at(20.0 * i as f64 + jitter)), 1, "tick {i}");
            assert_eq!((grid.tick(), grid.time()), (i, 20_000_000 * i as i64));
        }
    }

    #[test]
    fn a_loop_slightly_off_its_rate_never_slips() {
        for period in [19.9, 20.1] {
            let mut grid = Grid::new(20 * MS);
            for i in 0..100_000u64 {
                let jitter = [2.0, -2.0, 1.0][i as usize % 3];
                let ticks = grid.advance(at(10.0 + period * i as f64 + jitter));
                assert_eq!(ticks, 1, "tick {i} at {period} ms");
            }
        }
    }

    #[test]
    fn missed_ticks_are_counted_and_repeated_reads_are_not_ticks() {
        let mut grid = Grid::new(MS);
        grid.advance(at(0.0));
        assert_eq!(grid.advance(at(0.1)), 0);
        assert_eq!(grid.advance(at(0.4)), 0);
        assert_eq!(grid.advance(at(1.0)), 1);
        assert_eq!(grid.advance(at(4.0)), 3);
        assert_eq!(grid.tick(), 4);
        assert_eq!(grid.advance(at(2.0)), 0, "time does not go back");
        assert_eq!(grid.advance(at(5.0)), 1);
    }

    #[test]
    fn moments_are_placed_on_the_nearest_tick_before_and_after() {
        let mut grid = Grid::new(10 * MS);
        grid.advance(at(0.0));
        grid.advance(at(10.0));
        assert_eq!(grid.time_of(at(10.0)), 10_000_000);
        assert_eq!(grid.time_of(at(6.0)), 10_000_000);
        assert_eq!(grid.time_of(at(4.0)), 0);
        assert_eq!(grid.time_of(at(-24.0)), -20_000_000);
        assert_eq!(grid.time_of(at(16.0)), 20_000_000);
    }

    #[test]
    fn absurd_times_do_not_overflow() {
        let mut grid = Grid::new(MS);
        grid.advance(Timestamp::from_nanos(0));
        grid.advance(Timestamp::from_nanos(u64::MAX));
        let mut plan = PlanClock::new();
        plan.resume(grid.time());
        assert_eq!(plan.played(grid.time()) - plan.played(grid.time_of(Timestamp::from_nanos(0))), 0);
        plan.stop(grid.time(), i64::MAX / 4);
        assert!(!plan.at_rest(grid.time() + 1));
    }

    #[test]
    fn time_at_rest_is_not_played() {
        let mut plan = PlanClock::new();
        let start = plan.played(-500);
        assert_eq!(plan.played(0), start, "at rest from the start");
        plan.resume(100);
        assert_eq!(plan.played(150) - start, 50);
        plan.stop(200, 0);
        assert!(plan.at_rest(200) && !plan.running());
        assert_eq!(plan.played(1000) - start, 100);
        plan.resume(1000);
        assert_eq!(plan.played(1010) - start, 110);
        // The past stays what it was.
        assert_eq!(plan.played(150) - start, 50);
        assert_eq!(plan.played(600) - start, 100);
        assert_eq!(plan.played(0), start);
    }

    #[test]
    fn a_ramp_slows_down_evenly_and_costs_half_its_length() {
        let mut plan = PlanClock::new();
        plan.resume(0);
        plan.stop(1000, 400);
        let p = |t| plan.played(t) - plan.played(0);
        assert_eq!((p(1000), p(1100), p(1200), p(1400), p(2000)), (1000, 1088, 1150, 1200, 1200));
        assert!(!plan.at_rest(1399) && plan.at_rest(1400) && !plan.running());
    }

    proptest! {
        /// Against adding up the pace, one nanosecond at a time, over any number of stops.
        #[test]
        fn played_time_agrees_with_adding_up_the_pace(
            changes in proptest::collection::vec((1i64..60, proptest::option::of(0i64..40)), 0..20),
        ) {
            let mut plan = PlanClock::new();
            let (mut now, mut sum) = (0i64, 0.0f64);
            let mut stopping: Option<(i64, i64)> = Some((0, 0));
            let mut history = vec![(0, 0.0)];
            for (gap, ramp) in changes {
                for _ in 0..gap {
                    let pace = match stopping {
                        None => 1.0,
                        Some((since, ramp)) => (1.0 - (now as f64 + 0.5 - since as f64) / ramp as f64).max(0.0),
                    };
                    sum += if pace.is_nan() { 0.0 } else { pace };
                    now += 1;
                    history.push((now, sum));
                }
                match ramp {
                    Some(ramp) if stopping.is_none() => {
                        plan.stop(now, ramp);
                        stopping = Some((now, ramp));
                    }
                    _ if stopping.is_some() => {
                        plan.resume(now);
                        stopping = None;
                    }
                    _ => {}
                }
            }
            let end = plan.played(now);
            // The newest stretches are exact to rounding; what the knots have forgotten counts as rest.
            let reach = history.len().saturating_sub(40);
            for &(t, played) in &history[reach..] {
                let got = (end - plan.played(t)) as f64;
                prop_assert!(got <= sum - played + 8.0, "at {}: {} instead of {}", t, got, sum - played);
            }
            let last = history[history.len() - 1];
            prop_assert!((plan.played(last.0) - end).abs() == 0);
            prop_assert!(history.windows(2).all(|w| plan.played(w[0].0) <= plan.played(w[1].0)));
        }
    }
}
