//! The tables that the denoise step reads: made when the number of steps changes, or what guides a chunk.

use super::{MAX_NUM_STEPS, Pipeline};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::flow::{self, SCHEDULE_COLUMNS};

impl Pipeline {
    /// Makes the time table's row for rows that are clean, whose time is 0 in every step.
    pub(super) fn make_clean_time(&mut self) -> Result<()> {
        let Some(clean) = self.ids.clean else { return Ok(()) };
        let width = self.sizes.expert_width as usize;
        let (time, tensors) = (&mut self.time_conditioning, &mut self.tensors);
        let embedding = &mut tensors.f32_mut(self.ids.time_embedding)?[..width];
        flow::write_time_embedding(0.0, self.periods.0, self.periods.1, embedding);
        tensors.upload(self.ids.time_embedding, 0..width)?;
        time.bind_input(0, tensors, self.ids.time_embedding, 0, &[1, width as i64])?;
        let row = [1, self.time_row.iter().product()];
        time.bind_output(0, tensors, clean.time, 0, &row)?;
        time.run(tensors)
    }

    /// Makes the tables of `num_steps` Euler steps unless they are there already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] outside 1..=[`MAX_NUM_STEPS`].
    pub fn set_num_steps(&mut self, num_steps: usize) -> Result<()> {
        if self.num_steps == Some(num_steps) {
            return Ok(());
        }
        if !(1..=MAX_NUM_STEPS).contains(&num_steps) {
            let text = format!("num_steps is {num_steps}; it must be from 1 to {MAX_NUM_STEPS}");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        self.num_steps = None;
        let (ids, tensors) = (&self.ids, &mut self.tensors);
        let width = self.sizes.expert_width as usize;
        let embeddings = tensors.f32_mut(ids.time_embedding)?;
        for (step, row) in embeddings.chunks_exact_mut(width).take(num_steps).enumerate() {
            let time = flow::flow_time(self.times, step, num_steps) as f32;
            flow::write_time_embedding(time, self.periods.0, self.periods.1, row);
        }
        tensors.upload(ids.time_embedding, 0..num_steps * width)?;
        let n = num_steps as i64;
        let mut table = vec![n];
        table.extend(&self.time_row);
        let time = &mut self.time_conditioning;
        time.bind_input(0, tensors, ids.time_embedding, 0, &[n, width as i64])?;
        time.bind_output(0, tensors, ids.time_table, 0, &table)?;
        time.run(tensors)?;
        // No stage of a chunk: it happens when the number of steps changes.
        tensors.forget_lap();
        self.write_schedule(num_steps, |_| 0.0)?;
        self.num_steps = Some(num_steps);
        Ok(())
    }

    /// Sets every step's guidance weight: `weight(flow time)`. The tables must have been made.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`], as every method below that reaches the device, when it fails.
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

    /// Sets how many rows are a clean prefix: those of the previous actions, kept as they are in every step.
    /// Nothing for a policy that was not trained for it.
    ///
    /// # Errors
    /// As [`set_guidance`](Self::set_guidance).
    pub fn set_clean_rows(&mut self, rows: usize) -> Result<()> {
        let Some(clean) = self.ids.clean.filter(|_| self.clean_rows != rows) else { return Ok(()) };
        self.tensors.bytes_mut(clean.rows)?.copy_from_slice(&(rows as i64).to_ne_bytes());
        self.tensors.upload(clean.rows, 0..1)?;
        self.clean_rows = rows;
        Ok(())
    }
}
