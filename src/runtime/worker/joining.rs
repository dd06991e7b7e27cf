//! Joining a chunk to the one being executed: what inference is told before it, and whether it came in time.

use super::Worker;
use crate::policy::rtc::prefix_weights;
use crate::realtime::chunk::ChunkInfo;
use crate::realtime::clock::{Clock, Timestamp, nanos};
use crate::runtime::Inference;
use crate::{Error, ErrorKind};

impl<I: Inference, C: Clock> Worker<I, C> {
    /// Prepares guidance by the chunk being executed, if there is any, and notes it in `info`.
    pub(super) fn guide(&mut self, info: &mut ChunkInfo) -> Option<f32> {
        let rtc = self.config.rtc?;
        if self.previous.info.number == 0 {
            return None;
        }
        let progress = self.progress();
        if !progress.moving || !self.was_read_lately(info.begun) {
            // The robot stands still, so there is no motion to join. Or nobody follows what was planned.
            return None;
        }
        // Where in the old chunk the robot was or will be at the moment the new chunk's row 0 is due.
        let since = i128::from(info.captured.as_nanos()) - i128::from(progress.at.as_nanos());
        let position = i128::from(progress.position_ns) + since;
        let period = self.action_period as f64;
        let planned = self.previous.leftover_into(
            position as f64 / period,
            self.config.timeline.interpolation,
            &mut self.leftover,
        );
        if planned == 0 {
            return None;
        }
        let rows = info.expected_ns.div_ceil(self.action_period);
        let delay = match self.inference.max_inference_delay() {
            None => rows.min(planned as u64) as usize,
            // A policy trained for it has to be told enough rows, and no more than it knows: one more than expected, and
            // all of them while nothing has been measured.
            Some(most) if self.delay.estimate() == 0 => most.min(planned),
            Some(most) => (rows + 1).min(most.min(planned) as u64) as usize,
        };
        let end = rtc.execution_horizon.min(planned);
        prefix_weights(rtc.schedule, delay, end, &mut self.weights);
        info.guided_rows = end as u32;
        info.inference_delay = delay as u32;
        Some(rtc.max_guidance_weight)
    }

    /// Returns true if the control loop has read from the chunk published last within
    /// [`max_age`](crate::runtime::TimelineConfig::max_age), or has not had the time to: then its plan would wait for
    /// it, see [`max_missed_ticks`](crate::runtime::TimelineConfig::max_missed_ticks).
    fn was_read_lately(&self, now: Timestamp) -> bool {
        let (timeline, told) = (&self.config.timeline, self.ends.progress.get());
        let period = nanos(timeline.control_period);
        let waits =
            period.saturating_mul(u64::from(timeline.max_missed_ticks) + 1).saturating_add(period / 2);
        if told.chunk == self.previous.info.number {
            now.since(told.at) <= waits.max(nanos(timeline.max_age))
        } else {
            now.since(self.previous.info.published) <= waits
        }
    }

    /// Returns an error if the policy was trained for real-time chunking and made the chunk to join after fewer rows
    /// than have been executed by now: what was executed since is not what it was made to follow.
    pub(super) fn too_late(&mut self, info: &ChunkInfo) -> Option<Error> {
        let most = self.inference.max_inference_delay().filter(|_| info.guided_rows > 0)?;
        let now = self.clock.now();
        let (late, told) = (now.since(info.captured).div_ceil(self.action_period), info.inference_delay);
        (late > u64::from(told)).then(|| {
            // The next one is told better.
            self.delay.record(now.since(info.begun));
            let text = format!(
                "the chunk took {late} rows and was made to join after {told}; this policy was trained for at most {most}"
            );
            Error::new(ErrorKind::Runtime, text)
        })
    }
}
