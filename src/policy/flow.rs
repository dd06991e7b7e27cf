//! Flow matching: the Euler schedule and the time embedding (t = 1 is noise, t = 0 is the action).

/// Columns of one schedule row, as `denoise_step` reads them: flow time, step size, guidance weight.
pub const SCHEDULE_COLUMNS: usize = 3;

use crate::bundle::FlowTimes;

/// Flow time of Euler step `step` of `num_steps`: 1 + step · (−1/num_steps), in f64 as lerobot counts, or added up in
/// f32 as openpi does.
pub fn flow_time(times: FlowTimes, step: usize, num_steps: usize) -> f64 {
    let dt = -1.0 / num_steps as f64;
    match times {
        FlowTimes::Fraction => 1.0 + step as f64 * dt,
        FlowTimes::Accumulated => f64::from((0..step).fold(1.0, |time, _| time + dt as f32)),
    }
}

/// Writes the schedule `[num_steps, 3]`: rows of (time, dt, guidance). `guidance` maps a flow time to the weight
/// of the guidance term, zero for none.
pub fn write_schedule(
    times: FlowTimes,
    num_steps: usize,
    schedule: &mut [f32],
    guidance: impl Fn(f64) -> f32,
) {
    let dt = (-1.0 / num_steps as f64) as f32;
    for (step, row) in schedule.chunks_exact_mut(SCHEDULE_COLUMNS).take(num_steps).enumerate() {
        let time = flow_time(times, step, num_steps);
        row.copy_from_slice(&[time as f32, dt, guidance(time)]);
    }
}

/// Returns true if the schedule's rows hold these guidance weights already.
pub fn has_weights(
    times: FlowTimes,
    num_steps: usize,
    schedule: &[f32],
    guidance: impl Fn(f64) -> f32,
) -> bool {
    let rows = schedule.chunks_exact(SCHEDULE_COLUMNS).take(num_steps);
    rows.enumerate().all(|(step, row)| row[2] == guidance(flow_time(times, step, num_steps)))
}

/// Writes the sine-cosine embedding of `time`: `[sin(t·ω_i)…, cos(t·ω_i)…]`, ω_i = 2π / period_i, the periods
/// spaced geometrically from `min_period` to `max_period`. Arguments reach thousands of radians, so all of it is
/// f64 until the last rounding.
///
/// Source: `create_sinusoidal_pos_embedding` in lerobot, `posemb_sincos` in openpi.
pub fn write_time_embedding(time: f32, min_period: f64, max_period: f64, embedding: &mut [f32]) {
    let half = embedding.len() / 2;
    let (sines, cosines) = embedding.split_at_mut(half);
    for (i, (sine, cosine)) in sines.iter_mut().zip(cosines).enumerate() {
        let fraction = if half > 1 { i as f64 / (half - 1) as f64 } else { 0.0 };
        let period = min_period * (max_period / min_period).powf(fraction);
        let angle = f64::from(time) * (std::f64::consts::TAU / period);
        *sine = angle.sin() as f32;
        *cosine = angle.cos() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_steps_are_the_references_f32_times() {
        let mut rows = [0.0; 30];
        write_schedule(FlowTimes::Fraction, 10, &mut rows, |t| t as f32 * 2.0);
        let times: Vec<f32> = rows.chunks(3).map(|r| r[0]).collect();
        let expected = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
        for (t, e) in times.iter().zip(expected) {
            assert!((t - e as f32).abs() <= f32::EPSILON * 2.0, "{t} {e}");
        }
        assert!(rows.chunks(3).all(|r| r[1] == -0.1 && r[2] == (r[0] * 2.0)));
    }

    #[test]
    fn accumulated_times_are_openpis() {
        let time = |step| flow_time(FlowTimes::Accumulated, step, 10) as f32;
        assert_eq!([time(0), time(1), time(9)], [1.0, 0.9, 0.099_999_93]);
    }

    #[test]
    fn the_embedding_starts_at_the_shortest_period_and_ends_at_the_longest() {
        let mut e = [0.0; 8];
        write_time_embedding(0.25, 4e-3, 4.0, &mut e);
        let angle = |period: f64| 0.25 * std::f64::consts::TAU / period;
        assert_eq!(e[0], angle(4e-3).sin() as f32);
        assert!((f64::from(e[3]) - angle(4.0).sin()).abs() < 1e-7);
        assert!((f64::from(e[7]) - angle(4.0).cos()).abs() < 1e-7);
    }
}
