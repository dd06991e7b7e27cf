//! Where the marks of a plot's axis go.

/// Round numbers from `low` to `high` that divide the span into about `parts`; of no span, its one value.
pub fn marks(low: f64, high: f64, parts: usize) -> Vec<f64> {
    let raw = (high - low) / parts as f64;
    if !(raw.is_finite() && raw > 0.0) {
        return vec![low];
    }
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|v| *v <= high + step * 1e-6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(marks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(marks(0.13, 0.52, 4), [0.2, 0.30000000000000004, 0.4, 0.5]);
        assert_eq!(marks(5.0, 5.0, 4), [5.0]);
        for (low, high) in [(-1.73, 0.41), (1e-3, 2e-3), (-1e4, 3e5), (5.0, 5.001)] {
            let marks = marks(low, high, 3);
            assert!((1..=5).contains(&marks.len()), "{low} to {high}: {marks:?}");
            assert!(marks.iter().all(|v| (low..=high).contains(v)));
        }
    }
}
