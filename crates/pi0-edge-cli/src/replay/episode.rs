//! An episode on disk: a folder of observations with times.
//!
//! ```text
//! EPISODE/
//!   episode.json     {"prompt": "pick up the cube",
//!                     "observations": [{"time_s": 0.0, "path": "000"}, {"time_s": 0.033, "path": "001"}, …]}
//!   000/             what `run --observation` takes: observation.json and the frames it names
//!   001/
//! ```
//!
//! `time_s` is the capture time in seconds, not negative and rising from one observation to the next; where it starts
//! does not matter. `path` is a directory or an observation's JSON file, relative to `episode.json` and not above it.
//! `prompt` may be absent; an observation that has a prompt of its own must have the same one. All frames are decoded
//! before the replay begins, so an episode has to fit into memory.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use pi0_edge::internals::hex;
use pi0_edge::{Error, ErrorKind, Manifest, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::observation::StoredObservation;
use crate::output::read_json;

/// Largest episode.json read.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Most bytes of decoded frames held.
const MAX_FRAME_BYTES: usize = 4 << 30;
/// Length of an episode of one observation.
const SINGLE: Duration = Duration::from_millis(33);

/// The content of an episode.json.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeFile {
    prompt: Option<String>,
    observations: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    time_s: f64,
    path: String,
}

impl EpisodeFile {
    /// Checks that there are observations, at rising times and inside the episode's directory; `file` is for the
    /// error.
    ///
    /// # Errors
    /// [`ErrorKind::Observation`], naming the file and the observation.
    pub fn check(&self, file: &Path) -> Result<()> {
        if self.observations.is_empty() {
            return wrong(file, "there are no observations in it");
        }
        let mut before = -1.0;
        for (i, Entry { time_s, path }) in self.observations.iter().enumerate() {
            let wrong = |what: String| wrong(file, &format!("observation {i} has {what}"));
            if !(0.0..=1e9).contains(time_s) {
                return wrong(format!("time_s {time_s}; use seconds from 0"));
            }
            if std::mem::replace(&mut before, *time_s) >= *time_s {
                return wrong(format!("time_s {time_s}, which is not after that of the one before"));
            }
            let inside = |c| matches!(c, Component::Normal(_) | Component::CurDir);
            if !Path::new(path).components().all(inside) {
                return wrong(format!("path {path}; it must lie in the episode's directory"));
            }
        }
        Ok(())
    }
}

fn wrong<T>(file: &Path, what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Observation, format!("{}: {what}", file.display())))
}

/// One observation and when it was captured.
struct Moment {
    /// Since the first.
    at: Duration,
    observation: StoredObservation,
    /// The path it was read from.
    path: PathBuf,
}

/// A decoded episode.
pub struct Episode {
    moments: Vec<Moment>,
    /// The task, if the episode names one.
    pub prompt: Option<String>,
    /// SHA-256 over everything that is replayed.
    pub digest: String,
}

impl Episode {
    /// Reads `DIR/episode.json` and everything it names.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::Observation`], naming the file and what is wrong with it.
    pub fn read(dir: &Path) -> Result<Self> {
        let file = dir.join("episode.json");
        let stored: EpisodeFile = read_json(&file, MAX_JSON_BYTES, ErrorKind::Observation)?;
        stored.check(&file)?;
        let first = stored.observations[0].time_s;
        let (mut prompt, mut bytes) = (stored.prompt, 0);
        let mut moments: Vec<Moment> = Vec::with_capacity(stored.observations.len());
        for (i, Entry { time_s: time, path }) in stored.observations.into_iter().enumerate() {
            let stored =
                if dir.join(&path).is_dir() { format!("{path}/observation.json") } else { path.clone() };
            let observation = StoredObservation::read_inside(dir, &stored)
                .map_err(|e| e.context(format_args!("{}: observation {i}", dir.display())))?;
            let path = dir.join(path);
            match (observation.prompt(), &prompt) {
                (None, _) => {}
                (Some(own), None) if i == 0 => prompt = Some(own.to_owned()),
                (Some(own), Some(prompt)) if prompt == own => {}
                (Some(own), _) => {
                    let what = format!("observation {i} has a prompt of its own, {own:?}");
                    return wrong(&file, &format!("{what}; an episode has one prompt"));
                }
            }
            bytes += observation.images().map(|i| i.data.len()).sum::<usize>();
            if bytes > MAX_FRAME_BYTES {
                return wrong(
                    &file,
                    &format!(
                        "its frames come to more than {} GiB decoded; use a part of the episode or smaller frames",
                        MAX_FRAME_BYTES >> 30
                    ),
                );
            }
            moments.push(Moment { at: Duration::from_secs_f64(time - first), observation, path });
        }
        let digest = digest(prompt.as_deref(), &moments);
        Ok(Episode { moments, prompt, digest })
    }

    /// Checks every observation against the bundle.
    ///
    /// # Errors
    /// [`ErrorKind::Observation`] or [`ErrorKind::NonFinite`], naming the observation and what does not fit.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let check = |m: &Moment| m.observation.check(manifest).map_err(|e| e.context(m.path.display()));
        self.moments.iter().try_for_each(check)
    }

    /// Counts the observations.
    pub fn len(&self) -> usize {
        self.moments.len()
    }

    /// From the first observation to where the first would come again.
    pub fn length(&self) -> Duration {
        match &self.moments[..] {
            [.., before, last] => last.at + (last.at - before.at),
            _ => SINGLE,
        }
    }

    /// The capture time of observation `index`, since the first.
    pub fn at(&self, index: usize) -> Duration {
        self.moments[index].at
    }

    /// Observation `index`.
    pub fn observation(&self, index: usize) -> &StoredObservation {
        &self.moments[index].observation
    }

    /// Writes the state at `since` the first observation, moving evenly from one to the next, as often as the episode is
    /// replayed. Entries that it does not have are left alone.
    pub fn state_at(&self, since: Duration, state: &mut [f32]) {
        let since = Duration::from_nanos((since.as_nanos() % self.length().as_nanos()) as u64);
        let next = self.moments.partition_point(|moment| moment.at <= since);
        let (a, b) = (&self.moments[next - 1], &self.moments[next.min(self.moments.len() - 1)]);
        let share = match b.at - a.at {
            Duration::ZERO => 0.0,
            between => (since - a.at).div_duration_f32(between),
        };
        let pairs = a.observation.state().iter().zip(b.observation.state());
        state.iter_mut().zip(pairs).for_each(|(value, (a, b))| *value = a + (b - a) * share);
    }

    /// Width and height that every frame fits into.
    pub fn max_frame(&self) -> (u32, u32) {
        let frames = self.moments.iter().map(|m| m.observation.largest_frame());
        frames.fold((1, 1), |(w, h), (width, height)| (w.max(width), h.max(height)))
    }
}

fn digest(prompt: Option<&str>, moments: &[Moment]) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(prompt.unwrap_or_default().as_bytes());
    for moment in moments {
        part(&(moment.at.as_nanos() as u64).to_le_bytes());
        moment.observation.state().iter().for_each(|v| part(&v.to_le_bytes()));
        for image in moment.observation.images() {
            part(image.name.as_bytes());
            part(&image.width.to_le_bytes());
            part(&image.data);
        }
    }
    hex(&hash.finalize())
}
