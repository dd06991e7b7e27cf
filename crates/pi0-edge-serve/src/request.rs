//! A client's message as a request for one chunk.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use pi0_edge::bundle::Manifest;
use pi0_edge::rtc::{Guidance, PrefixSchedule, RtcConfig, prefix_weights};
use pi0_edge::{Frame, InferOptions, Noise, Observation, Result};
use tungstenite::Bytes;

use crate::array::{Array, Dtype, Numbers, scalar_of, text, whole_number};
use crate::names::{Names, Part, plain};
use crate::value::Value;

/// Unknown keys that are told about; what comes after these is ignored without a word.
const MOST_TOLD: usize = 16;
/// Longest name of a value, those of the maps around it included, in bytes. Each value has one.
const MAX_NAME: usize = 256;

/// A refused message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no map of msgpack: nothing that this client sends can be relied on.
    Malformed(String),
    /// Its observation does not fit.
    Observation(String),
}

/// The shapes and names that requests are held to.
#[derive(Debug)]
pub(crate) struct Contract {
    names: Names,
    noise: [usize; 2],
    action_dim: usize,
    prompt: Option<String>,
    num_steps: Option<usize>,
    told: Mutex<BTreeSet<String>>,
}

/// One request for a chunk. Frames of 8 bits with the colours last are still where the message had them.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Each with its key, width and height.
    images: Vec<(String, Bytes, u32, u32)>,
    state: Vec<f32>,
    prompt: Option<String>,
    noise: Option<Vec<f32>>,
    pub(crate) seed: Option<u64>,
    num_steps: Option<usize>,
    /// Rows not yet executed, in robot units, and each new row's weight.
    previous: Option<(Vec<f32>, Vec<f32>)>,
    inference_delay: usize,
}

impl Contract {
    pub(crate) fn new(
        manifest: &Manifest,
        names: Names,
        prompt: Option<String>,
        num_steps: Option<usize>,
    ) -> Self {
        Contract {
            names,
            noise: [manifest.dimensions.action_horizon, manifest.action.padded_dim],
            action_dim: manifest.action.dim,
            prompt,
            num_steps,
            told: Mutex::default(),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The reason, in words for the client. What only the policy knows, it says later: missing cameras, the state's
    /// length, the number of steps.
    pub(crate) fn read(&self, message: &Bytes) -> std::result::Result<Request, Refusal> {
        let value = Value::read(message).map_err(|why| {
            Refusal::Malformed(format!("the message is no msgpack that is taken here: {why}"))
        })?;
        if !matches!(value, Value::Map(_)) {
            return Err(Refusal::Malformed("the message is no map".into()));
        }
        self.request(&value, message).map_err(Refusal::Observation)
    }

    fn request(&self, message: &Value<'_>, bytes: &Bytes) -> std::result::Result<Request, String> {
        let mut leaves = Vec::new();
        flatten(message, "", &mut leaves)?;
        let mut request = Request::default();
        let mut states: [Option<Vec<f32>>; 2] = [None, None];
        let mut horizon = None;
        let mut previous = None;
        let mut seen: Vec<(Part, &str)> = Vec::new();
        for (name, value) in &leaves {
            // None in Python: as if it were not there.
            if **value == Value::Nil {
                continue;
            }
            let Some(part) = self.names.part(name) else {
                self.ignore(name, value)?;
                continue;
            };
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == part && part != Part::Dropped) {
                return Err(format!("{first:?} and {name:?} are the same; give one of them"));
            }
            seen.push((part, name));
            let context = |why: String| format!("{name}: {why}");
            match part {
                Part::Dropped => {}
                Part::Camera(camera) => {
                    let (pixels, width, height) = image(value, bytes).map_err(context)?;
                    request.images.push((self.names.key(camera).to_owned(), pixels, width, height));
                }
                Part::State(place) => {
                    let numbers = Numbers::read(value).map_err(context)?;
                    if numbers.shape.len() > 1 {
                        return Err(context(format!("a state has one axis, this has {:?}", numbers.shape)));
                    }
                    states[place] = Some(numbers.values);
                }
                Part::Prompt => request.prompt = Some(text(value).map_err(context)?),
                Part::Noise => request.noise = Some(self.noise(value).map_err(context)?),
                Part::Seed => request.seed = Some(whole_number(value).map_err(context)?),
                Part::NumSteps => request.num_steps = Some(size(value).map_err(context)?),
                Part::Previous => previous = Some(self.previous(value).map_err(context)?),
                Part::InferenceDelay => request.inference_delay = size(value).map_err(context)?,
                Part::ExecutionHorizon => horizon = Some(size(value).map_err(context)?),
            }
        }
        if request.noise.is_some() && request.seed.is_some() {
            return Err("noise and seed are both given; give one of them".into());
        }
        request.state = states.into_iter().flatten().flatten().collect();
        request.prompt = request.prompt.filter(|p| !p.is_empty()).or_else(|| self.prompt.clone());
        request.num_steps = request.num_steps.or(self.num_steps);
        request.previous = previous.filter(|rows| !rows.is_empty()).map(|rows| {
            let mut weights = vec![0.0; self.noise[0]];
            let end =
                horizon.unwrap_or(RtcConfig::default().execution_horizon).min(rows.len() / self.action_dim);
            prefix_weights(PrefixSchedule::default(), request.inference_delay, end, &mut weights);
            (rows, weights)
        });
        Ok(request)
    }

    /// Passes over what no part takes, unless it is an image: a camera that is not looked at is a mistake.
    fn ignore(&self, name: &str, value: &Value<'_>) -> std::result::Result<(), String> {
        if matches!(value.get("shape"), Some(Value::List(shape)) if shape.len() == 3) {
            return Err(format!("no camera takes the image {name:?}; known are {}", self.names.images()));
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let name: String = name.chars().take(64).collect();
        if told.len() < MOST_TOLD && told.insert(name.clone()) {
            log::warn!("{name:?} in a client's observation is ignored: nothing here has that name");
        }
        Ok(())
    }

    fn noise(&self, value: &Value<'_>) -> std::result::Result<Vec<f32>, String> {
        let numbers = Numbers::read(value)?;
        let shape = match &numbers.shape[..] {
            [1, shape @ ..] if shape.len() == 2 => shape,
            shape => shape,
        };
        if shape != self.noise {
            return Err(format!("it has shape {:?}; it must be {:?}", numbers.shape, self.noise));
        }
        Ok(numbers.values)
    }

    fn previous(&self, value: &Value<'_>) -> std::result::Result<Vec<f32>, String> {
        let numbers = Numbers::read(value)?;
        match &numbers.shape[..] {
            [] | [0] => Err("rows of actions are wanted".into()),
            [rows, dim] if *dim == self.action_dim && *rows <= self.noise[0] => Ok(numbers.values),
            shape => Err(format!(
                "it has shape {shape:?}; it must be up to {} rows of {}",
                self.noise[0], self.action_dim
            )),
        }
    }
}

impl Request {
    /// Lends the observation and the options of its inference to `infer`; `seed` is for requests without seed and noise.
    pub(crate) fn with<T>(
        &self,
        seed: u64,
        infer: impl FnOnce(&Observation<'_>, &InferOptions<'_>) -> Result<T>,
    ) -> Result<T> {
        let frame = |(key, pixels, width, height): &'_ (String, Bytes, u32, u32)| {
            Frame::new(pixels, *width, *height).map(|_| ()).map_err(|e| e.context(key))
        };
        self.images.iter().try_for_each(frame)?;
        let images =
            self.images.iter().map(|(key, pixels, w, h)| Ok((key.as_str(), Frame::new(pixels, *w, *h)?)));
        let images = images.collect::<Result<Vec<_>>>()?;
        let observation = Observation { images: &images, state: &self.state, prompt: self.prompt.as_deref() };
        let options = InferOptions {
            noise: self.noise.as_deref().map_or(Noise::Seed(self.seed.unwrap_or(seed)), Noise::Given),
            num_steps: self.num_steps,
            guidance: self.previous.as_ref().map(|(previous, prefix_weights)| Guidance {
                previous,
                prefix_weights,
                max_guidance_weight: RtcConfig::default().max_guidance_weight,
                inference_delay: self.inference_delay,
            }),
        };
        infer(&observation, &options)
    }

    /// True if the noise came with the request, so that no seed made it.
    pub(crate) fn has_noise(&self) -> bool {
        self.noise.is_some()
    }
}

/// Lists what the maps inside each other hold, by names in the form of [`plain`].
///
/// # Errors
/// A name that is too long.
fn flatten<'v, 'a>(
    value: &'v Value<'a>,
    path: &str,
    leaves: &mut Vec<(String, &'v Value<'a>)>,
) -> std::result::Result<(), String> {
    match value {
        Value::Map(entries) if value.get("__ndarray__").is_none() && scalar_of(value).is_none() => {
            for (key, value) in entries {
                if path.len() + key.len() >= MAX_NAME {
                    return Err(format!(
                        "a name of {} bytes or more; at most {MAX_NAME} are taken",
                        path.len() + key.len()
                    ));
                }
                let path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
                flatten(value, &path, leaves)?;
            }
        }
        _ => leaves.push((plain(path), value)),
    }
    Ok(())
}

fn size(value: &Value<'_>) -> std::result::Result<usize, String> {
    let n = whole_number(value)?;
    usize::try_from(n).map_err(|_| format!("{n} is too large"))
}

/// Returns an image's pixels, `[height, width, 3]` bytes, its width and its height.
fn image(value: &Value<'_>, message: &Bytes) -> std::result::Result<(Bytes, u32, u32), String> {
    let array = Array::read(value)?;
    let [first, second, third] = array.shape[..] else {
        return Err(format!("an image has 3 axes, this has {:?}", array.shape));
    };
    // The colours come first where that can be, as openpi has it.
    let (planes, height, width) = match (first, third) {
        (3, _) => (true, second, third),
        (_, 3) => (false, first, second),
        _ => {
            return Err(format!(
                "an image is [height, width, 3] or [3, height, width], not {:?}",
                array.shape
            ));
        }
    };
    let pixels = match array.dtype {
        Dtype::U8 => message.slice_ref(array.data),
        _ => array.unit_to_bytes()?.into(),
    };
    let side =
        |n: usize| u32::try_from(n).map_err(|_| format!("an image of {height} rows of {width} pixels"));
    let (height_u32, width_u32) = (side(height)?, side(width)?);
    let pixels = if planes { interleaved(&pixels).into() } else { pixels };
    Ok((pixels, width_u32, height_u32))
}

/// Returns three planes of colours as pixels of three colours.
fn interleaved(planes: &[u8]) -> Vec<u8> {
    let (red, rest) = planes.split_at(planes.len() / 3);
    let (green, blue) = rest.split_at(rest.len() / 2);
    red.iter().zip(green).zip(blue).flat_map(|((r, g), b)| [*r, *g, *b]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_copied_for_each_of_many_values() {
        let long = "x".repeat(1 << 20);
        let many = Value::Map(vec![("k", Value::Nil); 1 << 16]);
        let error = flatten(&Value::Map(vec![(&long, many)]), "", &mut Vec::new()).unwrap_err();
        assert!(error.len() < 100 && error.contains("at most 256"), "{error}");
        let inner = Value::Map(vec![("images", Value::Map(vec![("base", Value::Nil)]))]);
        let (outer, mut leaves) = (Value::Map(vec![("observation", inner)]), Vec::new());
        flatten(&outer, "", &mut leaves).unwrap();
        assert_eq!(leaves, [("images.base".to_owned(), &Value::Nil)]);
    }
}
