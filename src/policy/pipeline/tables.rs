//! The tables that the denoise step reads: made when the number of steps changes, or what guides a chunk.

use super::Pipeline;
use crate::error::Result;
use crate::limits::MAX_NUM_STEPS;
use crate::policy::flow::{self, SCHEDULE_COLUMNS};
use crate::session::TensorId;

impl Pipeline {
    /// Makes the time table's row for an action prefix, whose time is 0 in every step.
    pub(super) fn make_action_prefix_time(&mut self) -> Result<()> {
        match self.ids.action_prefix {
            Some(prefix) => self.make_time_rows(1, prefix.time, |_| 0.0),
            None => Ok(()),
        }
    }

    /// Makes the tables of `num_steps` Euler steps unless they are there already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) outside 1..=[`MAX_NUM_STEPS`].
    pub fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        if self.num_steps == Some(num_steps) {
            return Ok(());
        }
        ensure!(
            (1..=MAX_NUM_STEPS).contains(&num_steps),
            InvalidArgument,
            "num_steps is {num_steps}; it must be from 1 to {MAX_NUM_STEPS}"
        );
        self.num_steps = None;
        let times = self.times;
        self.make_time_rows(num_steps, self.ids.time_table, |step| {
            flow::flow_time(times, step, num_steps) as f32
        })?;
        // No stage of a chunk: it happens when the number of steps changes.
        self.tensors.forget_run();
        self.write_schedule(num_steps, |_| 0.0)?;
        self.num_steps = Some(num_steps);
        Ok(())
    }

    /// Computes the constant rows of `rows` flow times into `table`.
    fn make_time_rows(&mut self, rows: usize, table: TensorId, time: impl Fn(usize) -> f32) -> Result<()> {
        let (width, time_row, periods) = (self.sizes.expert_width, self.sizes.time_row, self.periods);
        let (ids, tensors, graph) = (&self.ids, &mut self.tensors, &mut self.time_conditioning);
        let embeddings = tensors.f32_mut(ids.time_embedding)?.chunks_exact_mut(width).take(rows);
        for (step, row) in embeddings.enumerate() {
            flow::write_time_embedding(time(step), periods.0, periods.1, row);
        }
        tensors.upload(ids.time_embedding, 0..rows * width)?;
        graph.bind(self.ports.time_embedding, tensors, (ids.time_embedding, 0), &[rows, width])?;
        graph.bind(self.ports.time_table, tensors, (table, 0), &[rows, time_row])?;
        graph.run(tensors)
    }

    /// Sets every step's guidance weight: `weight(flow time)`. The tables must have been made.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider), as every method below that reaches the device, when it
    /// fails.
    pub fn set_guidance(&mut self, weight: impl Fn(f64) -> f32) -> Result<()> {
        let Some(num_steps) = self.num_steps else { return Ok(()) };
        // Most chunks guide as the one before did, and the device has those weights already.
        if flow::has_weights(self.times, num_steps, &self.schedule, &weight) {
            return Ok(());
        }
        self.write_schedule(num_steps, weight)
    }

    fn write_schedule(&mut self, num_steps: usize, weight: impl Fn(f64) -> f32) -> Result<()> {
        flow::write_schedule(self.times, num_steps, &mut self.schedule, weight);
        self.tensors.f32_mut(self.ids.schedule)?.copy_from_slice(&self.schedule);
        self.tensors.upload(self.ids.schedule, 0..num_steps * SCHEDULE_COLUMNS)
    }

    /// Sets the length of the action prefix: the rows of the previous actions that are kept as they are in every step.
    /// Nothing for a policy that was not trained for it.
    ///
    /// # Errors
    /// As [`set_guidance`](Self::set_guidance).
    pub fn set_action_prefix(&mut self, rows: usize) -> Result<()> {
        let Some(prefix) = self.ids.action_prefix.filter(|_| self.action_prefix != rows) else {
            return Ok(());
        };
        self.tensors.bytes_mut(prefix.len)?.copy_from_slice(&(rows as i64).to_ne_bytes());
        self.tensors.upload(prefix.len, 0..1)?;
        self.action_prefix = rows;
        Ok(())
    }
}
