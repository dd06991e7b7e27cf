//! Figures of a number of episodes.

use serde_json::{Value, json};

use pi0_edge::Status;

use crate::closed_loop::{Episode, PERIOD};
use crate::world::{Goal, Outcome};

#[derive(Default)]
pub struct Report {
    episodes: Vec<Episode>,
}

impl Report {
    pub fn add(&mut self, episode: Episode) {
        self.episodes.push(episode);
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.episodes.iter().filter(|episode| episode.outcome == outcome).count()
    }

    pub fn success(&self) -> f64 {
        self.count(Outcome::Sorted) as f64 / self.episodes.len() as f64
    }

    /// Returns the mean distance between actions where one chunk took over from another, in millimetres.
    fn seam_mm(&self) -> Option<f64> {
        let seams = self.episodes.iter().flat_map(|episode| &episode.seams);
        mean(seams.map(|seam| f64::from(*seam) * 1e3))
    }

    /// Returns the mean time of the episodes that succeeded, in seconds.
    fn seconds(&self) -> Option<f64> {
        let sorted = self.episodes.iter().filter(|episode| episode.outcome == Outcome::Sorted);
        mean(sorted.map(|episode| episode.ticks as f64 * PERIOD.as_secs_f64()))
    }

    fn reads(&self) -> [u64; 4] {
        self.episodes.iter().fold([0; 4], |sum, episode| std::array::from_fn(|i| sum[i] + episode.reads[i]))
    }

    /// Returns the figures, after the `settings` that they were measured with.
    pub fn json(&self, settings: Value) -> Value {
        let reads = self.reads();
        let by_status: serde_json::Map<_, _> =
            Status::ALL.iter().map(|status| (status.to_string(), reads[*status as usize].into())).collect();
        let by_prompt: serde_json::Map<_, _> = Goal::ALL
            .iter()
            .map(|goal| {
                let asked = self.episodes.iter().filter(|episode| episode.goal == *goal);
                let sorted = asked.clone().filter(|episode| episode.outcome == Outcome::Sorted).count();
                (goal.prompt(), json!([sorted, asked.count()]))
            })
            .collect();
        json!({
            "settings": settings,
            "episodes": self.episodes.len(),
            "success": self.success(),
            "interval": wilson(self.count(Outcome::Sorted), self.episodes.len()),
            "misplaced": self.count(Outcome::Misplaced),
            "out_of_time": self.count(Outcome::Running),
            "seconds": self.seconds(),
            "seam_mm": self.seam_mm(),
            "seams": self.episodes.iter().map(|episode| episode.seams.len()).sum::<usize>(),
            "reads": by_status,
            "sorted_by_prompt": by_prompt,
        })
    }

    pub fn text(&self) -> String {
        let [low, high] = wilson(self.count(Outcome::Sorted), self.episodes.len()).map(|share| share * 100.0);
        let (n, sorted) = (self.episodes.len(), self.count(Outcome::Sorted));
        let some = |value: Option<f64>, digits| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let reads = self.reads();
        let reads: Vec<_> = Status::ALL.iter().map(|s| format!("{s} {}", reads[*s as usize])).collect();
        format!(
            "sorted    {sorted} of {n}: {:.1} % (95 % interval {low:.1} to {high:.1})\n\
             failed    {} in a wrong bin or with the wrong block, {} out of time\n\
             time      {} s, the mean of what was sorted\n\
             seams     {} mm from one chunk's last action to the next one's first, the mean\n\
             reads     {}",
            self.success() * 100.0,
            self.count(Outcome::Misplaced),
            self.count(Outcome::Running),
            some(self.seconds(), 2),
            some(self.seam_mm(), 1),
            reads.join(", "),
        )
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// Returns Wilson's interval of 95 % for a share.
pub fn wilson(successes: usize, n: usize) -> [f64; 2] {
    let (n, z) = (n as f64, 1.959_963_985);
    let share = successes as f64 / n;
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    [middle - half, middle + half].map(|bound| (bound / (1.0 + z * z / n)).clamp(0.0, 1.0))
}
