//! Names of an observation's parts, and what each is to the policy.

use std::collections::{BTreeMap, HashMap};

use pi0_edge::bundle::Manifest;
use pi0_edge::{Error, ErrorKind, Result};

use crate::options::Options;

/// A set of names that openpi's robots use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embodiment {
    /// `image` and `wrist_image`.
    Libero,
    /// `exterior_image_1_left` and `wrist_image_left`; the state in two parts, joints and gripper.
    Droid,
    /// `cam_high`, `cam_left_wrist`, `cam_right_wrist`; `cam_low` is dropped.
    Aloha,
}

impl Embodiment {
    /// The names and the cameras that they are; none: dropped.
    fn cameras(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Embodiment::Libero => &[("image", Some("base_0_rgb")), ("wrist_image", Some("left_wrist_0_rgb"))],
            Embodiment::Droid => &[
                ("exterior_image_1_left", Some("base_0_rgb")),
                ("wrist_image_left", Some("left_wrist_0_rgb")),
            ],
            Embodiment::Aloha => &[
                ("images.cam_high", Some("base_0_rgb")),
                ("images.cam_left_wrist", Some("left_wrist_0_rgb")),
                ("images.cam_right_wrist", Some("right_wrist_0_rgb")),
                ("images.cam_low", None),
            ],
        }
    }
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The camera's place in the manifest.
    Camera(usize),
    /// An image that the robot has and the policy does not use.
    Dropped,
    /// A part of the state, by its place.
    State(usize),
    Prompt,
    Noise,
    Seed,
    NumSteps,
    Previous,
    InferenceDelay,
    ExecutionHorizon,
}

const RESERVED: [(&str, Part); 9] = [
    ("state", Part::State(0)),
    ("prompt", Part::Prompt),
    ("task", Part::Prompt),
    ("noise", Part::Noise),
    ("seed", Part::Seed),
    ("num_steps", Part::NumSteps),
    ("prev_chunk_left_over", Part::Previous),
    ("inference_delay", Part::InferenceDelay),
    ("execution_horizon", Part::ExecutionHorizon),
];

/// The names that a request may use.
#[derive(Debug)]
pub(crate) struct Names {
    parts: HashMap<String, Part>,
    /// Each camera's key as the policy's own look-up wants it.
    keys: Vec<String>,
}

/// Returns a name in the one form in which they are compared: `.` between its parts, and no `observation.` before them.
pub(crate) fn plain(name: &str) -> String {
    let name = name.replace('/', ".");
    name.strip_prefix("observation.").map(str::to_owned).unwrap_or(name)
}

impl Names {
    /// Collects the names of a bundle, and those that the options add.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a name that stands for no camera of the bundle.
    pub(crate) fn new(manifest: &Manifest, options: &Options) -> Result<Self> {
        let place = |camera: &str| manifest.cameras.iter().position(|c| plain(&c.name) == plain(camera));
        let mut parts: HashMap<String, Part> =
            RESERVED.iter().map(|(n, part)| ((*n).to_owned(), *part)).collect();
        parts.insert(plain(&manifest.state.name), Part::State(0));
        parts.extend(manifest.cameras.iter().enumerate().map(|(i, c)| (plain(&c.name), Part::Camera(i))));
        // The robot's names come after the policy's own, which can be among them with another meaning.
        for (from, to) in &manifest.rename {
            if let Some(i) = place(to) {
                parts.insert(plain(from), Part::Camera(i));
            }
        }
        let mut add = |name: &str, camera: Option<&str>, option: &str| {
            let part = match camera {
                None => Part::Dropped,
                Some(camera) => Part::Camera(place(camera).ok_or_else(|| {
                    let known: Vec<&str> = manifest.cameras.iter().map(|c| c.name.as_str()).collect();
                    let text =
                        format!("{option}: the bundle has no camera {camera:?}; it has {}", known.join(", "));
                    Error::new(ErrorKind::InvalidArgument, text)
                })?),
            };
            parts.insert(plain(name), part);
            Ok::<(), Error>(())
        };
        for (name, camera) in options.embodiment.map_or(&[][..], Embodiment::cameras) {
            add(name, *camera, "--embodiment")?;
        }
        for (name, camera) in &options.rename {
            add(name, Some(camera), "--rename")?;
        }
        if options.embodiment == Some(Embodiment::Droid) {
            parts.insert("joint_position".into(), Part::State(0));
            parts.insert("gripper_position".into(), Part::State(1));
        }
        let keys = manifest.cameras.iter().map(|camera| key(&manifest.rename, &camera.name)).collect();
        Ok(Names { parts, keys })
    }

    /// Returns the part that a name stands for, as [`plain`] writes it.
    pub(crate) fn part(&self, name: &str) -> Option<Part> {
        self.parts.get(name).copied()
    }

    /// Returns a camera's key for an observation.
    pub(crate) fn key(&self, camera: usize) -> &str {
        &self.keys[camera]
    }

    /// Lists the names of images, for people.
    pub(crate) fn images(&self) -> String {
        let images = self.parts.iter().filter(|(_, part)| matches!(part, Part::Camera(_) | Part::Dropped));
        let mut names: Vec<&str> = images.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.join(", ")
    }
}

/// Returns a key that the bundle's rename takes to `camera`: its own, unless that is a robot's key of another one.
fn key(rename: &BTreeMap<String, String>, camera: &str) -> String {
    match rename.get(camera) {
        Some(other) if other != camera => {
            let back = rename.iter().find(|(_, to)| *to == camera).map(|(from, _)| from.clone());
            back.unwrap_or_else(|| camera.to_owned())
        }
        _ => camera.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for name in ["observation/images/base", "observation.images.base", "images.base", "images/base"] {
            assert_eq!(plain(name), "images.base");
        }
    }

    #[test]
    fn a_rename_that_swaps_two_cameras_is_kept() {
        let swap = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("b".to_owned(), "a".to_owned())]);
        assert_eq!((key(&swap, "a").as_str(), key(&swap, "b").as_str()), ("b", "a"));
        assert_eq!(key(&BTreeMap::from([("robot".to_owned(), "a".to_owned())]), "a"), "a");
    }
}
