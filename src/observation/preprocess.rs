//! An observation's frames and state to the model's inputs.

use super::image::Resizer;
use super::{Frame, Normalizer, Observation};
use crate::aloha;
use crate::bundle::Manifest;
use crate::error::{Error, Result};

/// Writes an observation into the model's input buffers. Made once for a bundle; allocates nothing afterwards, except
/// for the text of an error.
#[derive(Debug)]
pub struct Preprocessor {
    cameras: Vec<Camera>,
    /// From the robot's key to a camera's place in `cameras`.
    renamed: Vec<(String, usize)>,
    view_len: usize,
    state: Normalizer,
    state_dim: usize,
    state_normalized: usize,
    state_padded: usize,
    adapt_to_pi: bool,
}

#[derive(Debug)]
struct Camera {
    name: String,
    required: bool,
    resizer: Resizer,
    /// The camera's place among the images of the observation that was looked at last.
    found: Option<usize>,
}

impl Preprocessor {
    /// A preprocessor for the cameras, image rule and state of a bundle.
    pub fn new(manifest: &Manifest) -> Self {
        let d = &manifest.dimensions;
        let cameras: Vec<Camera> = manifest
            .cameras
            .iter()
            .map(|camera| Camera {
                name: camera.name.clone(),
                required: camera.required,
                resizer: Resizer::new(d.image_height, d.image_width, &manifest.image),
                found: None,
            })
            .collect();
        let renamed = manifest
            .rename
            .iter()
            .filter_map(|(from, to)| Some((from.clone(), cameras.iter().position(|c| c.name == *to)?)))
            .collect();
        Preprocessor {
            cameras,
            renamed,
            view_len: 3 * d.image_height * d.image_width,
            state: Normalizer::new(&manifest.state.normalization),
            state_dim: manifest.state.dim,
            state_normalized: manifest.state.normalized_len(),
            state_padded: manifest.state.padded_dim,
            adapt_to_pi: manifest.adapt_to_pi,
        }
    }

    /// Elements of one view: `3 * height * width`.
    pub fn view_len(&self) -> usize {
        self.view_len
    }

    /// Elements of the model's state: the padded width.
    pub fn state_len(&self) -> usize {
        self.state_padded
    }

    /// Finds the policy's cameras among the observation's images; returns how many are present, at least 1.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Observation`](crate::ErrorKind::Observation) for an image of no known camera, two images of one
    /// camera, a required camera that is missing, or no image at all.
    pub fn select_views(&mut self, observation: &Observation<'_>) -> Result<usize> {
        for camera in &mut self.cameras {
            camera.found = None;
        }
        for (i, (key, _)) in observation.images.iter().enumerate() {
            let Some(place) = self.resolve(key) else {
                return Err(refuse(format!(
                    "{key:?} is no camera of this bundle; it knows {}",
                    self.known_keys()
                )));
            };
            let camera = &mut self.cameras[place];
            if let Some(first) = camera.found.replace(i) {
                return Err(refuse(format!(
                    "the camera {:?} is given twice, as {:?} and as {key:?}",
                    camera.name, observation.images[first].0
                )));
            }
        }
        if let Some(camera) = self.cameras.iter().find(|c| c.required && c.found.is_none()) {
            return Err(refuse(format!(
                "the camera {:?} is required and missing; the observation has {}",
                camera.name,
                listed(observation.images.iter().map(|(key, _)| *key))
            )));
        }
        match self.cameras.iter().filter(|c| c.found.is_some()).count() {
            0 => Err(refuse(format!("there is no image; at least one of {} is needed", self.known_keys()))),
            views => Ok(views),
        }
    }

    /// Writes the present views, in policy order and packed: `[views, 3, height, width]` f32 in [-1, 1], with `views`
    /// as [`select_views`](Self::select_views) counts them.
    ///
    /// # Errors
    ///
    /// As [`select_views`](Self::select_views); [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if
    /// `dst` has another length; [`ErrorKind::Observation`](crate::ErrorKind::Observation) for a frame too narrow to be
    /// scaled. `dst` is then unspecified.
    pub fn write_pixels(&mut self, observation: &Observation<'_>, dst: &mut [f32]) -> Result<()> {
        // Looked up again: it costs a few comparisons, and a selection for another observation would be a wrong view.
        let views = self.select_views(observation)?;
        ensure!(
            dst.len() == views * self.view_len,
            InvalidArgument,
            "{views} views are {} elements, the buffer has {}",
            views * self.view_len,
            dst.len()
        );
        let mut views = dst.chunks_exact_mut(self.view_len);
        for camera in &mut self.cameras {
            if let Some(image) = camera.found
                && let Some(view) = views.next()
            {
                let frame: &Frame<'_> = &observation.images[image].1;
                camera
                    .resizer
                    .write(frame, view)
                    .map_err(|e| e.context(format_args!("camera {}", camera.name)))?;
            }
        }
        Ok(())
    }

    /// Writes the state in model units, zero beyond its true width: `[padded_dim]`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Observation`](crate::ErrorKind::Observation) if `state` has another length than the bundle's state;
    /// [`ErrorKind::NonFinite`](crate::ErrorKind::NonFinite) if an entry is NaN or infinite, or becomes so when it is
    /// normalised; [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if `dst` has another length than
    /// [`state_len`](Self::state_len). `dst` is then unspecified.
    pub fn write_state(&self, state: &[f32], dst: &mut [f32]) -> Result<()> {
        self.check_state(state)?;
        ensure!(
            dst.len() == self.state_padded,
            InvalidArgument,
            "the model's state has {} entries, the buffer has {}",
            self.state_padded,
            dst.len()
        );
        let (values, padding) = dst.split_at_mut(self.state_normalized);
        values.fill(0.0);
        values[..self.state_dim].copy_from_slice(state);
        self.to_policy(&mut values[..self.state_dim]);
        self.state.forward(values);
        padding.fill(0.0);
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => {
                let given = state.get(i).copied().unwrap_or_default();
                Err(err!(NonFinite, "state[{i}] = {given} becomes {} when it is normalised", values[i]))
            }
            None => Ok(()),
        }
    }

    /// Converts a state of the robot, in place, into the policy's joints and robot units: into itself, but for a bundle
    /// made with openpi's `adapt_to_pi`.
    pub(crate) fn to_policy(&self, state: &mut [f32]) {
        if self.adapt_to_pi {
            aloha::state_to_policy(state);
        }
    }

    /// Checks length and values of a raw state, as [`write_state`](Self::write_state) does.
    ///
    /// # Errors
    ///
    /// As [`write_state`](Self::write_state).
    pub fn check_state(&self, state: &[f32]) -> Result<()> {
        if state.len() != self.state_dim {
            return Err(refuse(format!(
                "the state has {} entries, the bundle's has {}",
                state.len(),
                self.state_dim
            )));
        }
        match state.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(err!(NonFinite, "state[{i}] is {}; the policy is not run on it", state[i])),
            None => Ok(()),
        }
    }

    /// The camera of an image's key. A robot's key comes first, because the policy's own keys can be among them with
    /// another meaning (a rename that swaps two cameras).
    fn resolve(&self, key: &str) -> Option<usize> {
        let renamed = self.renamed.iter().find(|(from, _)| from == key).map(|(_, place)| *place);
        renamed.or_else(|| self.cameras.iter().position(|c| c.name == key))
    }

    fn known_keys(&self) -> String {
        let policy = self.cameras.iter().map(|c| c.name.as_str());
        listed(policy.chain(self.renamed.iter().map(|(from, _)| from.as_str())))
    }
}

fn refuse(what: String) -> Error {
    err!(Observation, "observation: {what}")
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
