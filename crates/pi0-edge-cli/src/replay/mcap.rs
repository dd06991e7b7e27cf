//! Recording a run while it happens.

use std::path::Path;
use std::time::Duration;

use pi0_edge::runtime::FlightRecorder;
use pi0_edge::{Manifest, Result};
use pi0_edge_mcap::{Clock, Counts, Live, Names, Recording};
use serde_json::{Value, json};

use super::settings::Settings;

/// Starts to record what a flight recorder is told.
pub fn start(
    path: &Path,
    manifest: &Manifest,
    settings: &Settings,
    recorder: FlightRecorder,
) -> Result<Live> {
    let names = Names::of(manifest, Duration::from_secs_f64(1.0 / settings.action_rate_hz));
    Live::start(Recording::create(path, names, Clock::Wall)?, recorder)
}

/// Says what is in a recording, and what is not.
pub fn words(counts: Counts) -> String {
    let Counts { ticks, missed_ticks, chunks, images, lost_observations } = counts;
    format!(
        "{ticks} ticks ({missed_ticks} missed), {chunks} chunks, {images} images ({lost_observations} observations \
         lost); docs/see.md says how to open it"
    )
}

/// Returns the same for programs.
pub fn json(path: &Path, counts: Counts) -> Value {
    let Counts { ticks, missed_ticks, chunks, images, lost_observations } = counts;
    json!({
        "file": path, "ticks": ticks, "missed_ticks": missed_ticks, "chunks": chunks, "images": images,
        "lost_observations": lost_observations,
    })
}
