//! An observation on disk: `observation.json` and the frames beside it.

use std::collections::BTreeMap;
use std::path::Path;

use pi0_edge::internals::{Preprocessor, read_inside};
use pi0_edge::runtime::ObservationSlot;
use pi0_edge::{Bundle, Error, ErrorKind, Frame, MAX_CAMERAS, Manifest, Observation, Policy, Result};
use pi0_edge_golden::{Case, Golden};
use serde::Deserialize;

use crate::frame;
use crate::output::{file_name, parse_json};

/// Largest observation.json read.
const MAX_JSON_BYTES: u64 = 1 << 20;
/// Most pixels of all frames of an observation.
const MAX_OBSERVATION_PIXELS: usize = 1 << 26;

/// The content of an observation.json.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservationFile {
    images: BTreeMap<String, String>,
    state: Vec<f32>,
    prompt: Option<String>,
}

/// A decoded frame, RGB.
pub struct Image {
    /// The key it has in observation.json.
    pub name: String,
    /// `[height, width, 3]`.
    pub data: Vec<u8>,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// A decoded observation: frames as RGB8.
pub struct StoredObservation {
    images: Vec<Image>,
    state: Vec<f32>,
    prompt: Option<String>,
}

impl StoredObservation {
    /// Reads `DIR/observation.json` (or that file itself) and decodes the PNG or JPEG frames it names, which are in the
    /// same directory or below it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::Observation`], naming the file.
    pub fn read(path: &Path) -> Result<Self> {
        match path.parent() {
            Some(directory) if !path.is_dir() => Self::read_inside(directory, &file_name(path)),
            _ => Self::read_inside(path, "observation.json"),
        }
    }

    /// Reads the observation whose JSON file is at `file` below `root`, and its frames, by the rules for the files of a
    /// bundle: plain names, regular files, no links.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_inside(root: &Path, file: &str) -> Result<Self> {
        Self::read_by(file, &|name, max| read_inside(root, name, max, ErrorKind::Observation))
    }

    /// Reads the observation of a golden case: files that the bundle's manifest lists.
    ///
    /// # Errors
    /// As [`read`](Self::read), or [`ErrorKind::Integrity`].
    pub fn read_golden(case: &Case, bundle: &Bundle) -> Result<Self> {
        Self::read_by(&case.observation_path(bundle)?, &|name, max| bundle.read_file(name, max))
    }

    fn read_by(file: &str, read: &dyn Fn(&str, u64) -> Result<Vec<u8>>) -> Result<Self> {
        let stored: ObservationFile =
            parse_json(&read(file, MAX_JSON_BYTES)?, Path::new(file), ErrorKind::Observation)?;
        let unfit = |what: String| Error::new(ErrorKind::Observation, format!("{file} has {what}"));
        let (images, directory) = (stored.images.len(), file.rfind('/').map_or("", |end| &file[..=end]));
        if images > MAX_CAMERAS {
            return Err(unfit(format!("{images} images, at most {MAX_CAMERAS} are allowed")));
        }
        let mut pixels = 0;
        let images = stored.images.into_iter().map(|(name, frame)| {
            let path = format!("{directory}{frame}");
            let bytes = read(&path, frame::MAX_IMAGE_BYTES).map_err(|e| e.context(&name))?;
            let image = decode(&bytes, &path, name)?;
            pixels += image.data.len() / 3;
            if pixels > MAX_OBSERVATION_PIXELS {
                return Err(unfit(format!("frames of more than {MAX_OBSERVATION_PIXELS} pixels together")));
            }
            Ok(image)
        });
        Ok(StoredObservation {
            images: images.collect::<Result<_>>()?,
            state: stored.state,
            prompt: stored.prompt,
        })
    }

    /// Smooth frames for every camera, the state at rest, and the default prompt: enough to measure with.
    pub fn synthetic(manifest: &Manifest) -> Self {
        const WIDTH: u32 = 640;
        const HEIGHT: u32 = 480;
        let pixel = |x: u32, y: u32, c: u32| ((x * 3 + y * 5 + (x * y / 97) + c * 60) % 256) as u8;
        let data: Vec<u8> = (0..HEIGHT)
            .flat_map(|y| (0..WIDTH).flat_map(move |x| (0..3).map(move |c| pixel(x, y, c))))
            .collect();
        let image =
            |name: &String| Image { name: name.clone(), data: data.clone(), width: WIDTH, height: HEIGHT };
        let images = manifest.cameras.iter().map(|c| image(&c.name)).collect();
        let prompt = manifest.prompt.default.is_none().then(|| "pick up the object".to_owned());
        StoredObservation { images, state: vec![0.0; manifest.state.dim], prompt }
    }

    /// The frames.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.iter()
    }

    /// The state, in robot units.
    pub fn state(&self) -> &[f32] {
        &self.state
    }

    /// Counts the cameras it has frames of.
    pub fn cameras(&self) -> usize {
        self.images.len()
    }

    /// The one in `directory`; without one, the bundle's first golden case, and where it has none, a made-up one.
    pub fn read_or_golden(directory: Option<&Path>, policy: &Policy) -> Result<Self> {
        if let Some(directory) = directory {
            return Self::read(directory);
        }
        match Golden::load(policy.bundle())?.as_ref().and_then(|golden| golden.cases.first()) {
            Some(case) => Self::read_golden(case, policy.bundle()),
            None => Ok(Self::synthetic(policy.manifest())),
        }
    }

    /// The task, if it names one.
    pub fn prompt(&self) -> Option<&str> {
        self.prompt.as_deref()
    }

    /// The width and height that every frame fits into, at least 1 × 1.
    pub fn largest_frame(&self) -> (u32, u32) {
        self.images.iter().fold((1, 1), |(w, h), i| (w.max(i.width), h.max(i.height)))
    }

    /// Checks that this is an observation of the bundle's cameras and state.
    ///
    /// # Errors
    /// [`ErrorKind::Observation`] or [`ErrorKind::NonFinite`], saying what does not fit.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let mut preprocessor = Preprocessor::new(manifest);
        let mut state = vec![0.0; preprocessor.state_len()];
        self.with(|o| {
            preprocessor.select_views(o)?;
            preprocessor.write_state(o.state, &mut state)
        })
    }

    /// Fills all of a slot that has room for the frames; cameras without a frame are absent from it. Allocates nothing.
    pub fn copy_to(&self, manifest: &Manifest, slot: &mut ObservationSlot) {
        for (i, camera) in manifest.cameras.iter().enumerate() {
            let name =
                |image: &Image| manifest.rename.get(&image.name).unwrap_or(&image.name) == &camera.name;
            let image = self.images.iter().find(|image| name(image));
            match image.and_then(|image| Some((image, slot.frame_mut(i, image.width, image.height)?))) {
                Some((image, frame)) => frame.copy_from_slice(&image.data),
                None => slot.clear_frame(i),
            }
        }
        slot.state_mut().copy_from_slice(&self.state);
    }

    /// Lends the observation to `use_it`.
    pub fn with<T>(&self, use_it: impl FnOnce(&Observation<'_>) -> Result<T>) -> Result<T> {
        let frames = self.images.iter();
        let frames = frames.map(|i| Ok((i.name.as_str(), Frame::new(&i.data, i.width, i.height)?)));
        let frames = frames.collect::<Result<Vec<_>>>()?;
        use_it(&Observation { images: &frames, state: &self.state, prompt: self.prompt.as_deref() })
    }
}

/// The names of an action's values; those without a name are numbered.
pub fn action_names(policy: &Policy) -> Vec<String> {
    let action = &policy.manifest().action;
    action.names.clone().unwrap_or_else(|| (0..action.dim).map(|i| format!("a{i}")).collect())
}

fn decode(bytes: &[u8], path: &str, name: String) -> Result<Image> {
    let rgb = frame::decode(bytes).map_err(|what| {
        let text = format!("{name}: cannot read the frame {path}: {what}");
        Error::new(ErrorKind::Observation, text)
    })?;
    let (width, height) = rgb.dimensions();
    Ok(Image { name, data: rgb.into_raw(), width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_written_by_hand_may_begin_with_a_byte_order_mark() {
        let directory = tempfile::tempdir().unwrap();
        let text = "\u{feff}{\"images\": {}, \"state\": [1, 2.5], \"prompt\": null}";
        std::fs::write(directory.path().join("observation.json"), text).unwrap();
        let stored = StoredObservation::read(directory.path()).unwrap();
        assert_eq!(stored.state, [1.0, 2.5]);
    }
}
