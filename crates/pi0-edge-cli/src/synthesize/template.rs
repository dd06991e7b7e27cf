//! A template: a bundle without its weights, and the distributions to fill them with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pi0_edge::bundle::Dtype;
use pi0_edge::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::output::{cannot, parse_json, read_json, refuse};

pub const MANIFEST: &str = "manifest.json";
const RECIPE: &str = "weights.json";
const RECIPE_VERSION: u32 = 1;
/// Largest manifest or recipe read.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// The contents of the weights files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    version: u32,
    files: BTreeMap<String, WeightsFile>,
}

/// One file of weights.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// Bytes.
    pub size: u64,
    /// Its values, in the order of their offsets; what lies between runs is zero.
    pub runs: Vec<Run>,
}

/// Consecutive values of one distribution.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its offset, in bytes.
    pub offset: u64,
    /// Number of values.
    pub count: u64,
    /// Their type.
    pub dtype: Dtype,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation; of a constant, zero.
    pub std: f64,
}

/// The place of a template's files.
enum Origin {
    Directory(PathBuf),
    Program(Embedded),
}

/// Files of the program itself, by name.
type Embedded = &'static [(&'static str, &'static [u8])];

macro_rules! embedded {
    ($policy:literal: $($name:literal)*) => {
        ($policy, &[$(($name, include_bytes!(concat!("../../templates/", $policy, "-fp32/", $name)))),*])
    };
}

/// The small templates, which scripts/make_tiny.sh makes.
const SMALL: [(&str, Embedded); 2] = [
    embedded!("pi0": "manifest.json" "weights.json" "tokenizer.json" "vision_encoder.onnx" "prefix_prefill.onnx"
        "time_conditioning.onnx" "denoise_step.onnx"),
    embedded!("pi05": "manifest.json" "weights.json" "tokenizer.json" "vision_encoder.onnx" "prefix_prefill.onnx"
        "time_conditioning.onnx" "denoise_step.onnx"),
];

/// A template that has been read.
pub struct Template {
    origin: Origin,
    name: String,
    /// The manifest as it will be, but for the weights' hashes.
    pub manifest: Value,
    /// The files to fill, by name.
    pub weights: BTreeMap<String, WeightsFile>,
}

impl Origin {
    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        match self {
            Origin::Directory(from) => read_json(&from.join(name), MAX_JSON_BYTES, ErrorKind::Manifest),
            Origin::Program(files) => parse_json(embedded(files, name), Path::new(name), ErrorKind::Manifest),
        }
    }
}

fn embedded(files: Embedded, name: &str) -> &'static [u8] {
    files.iter().find(|(file, _)| *file == name).map_or(&[], |(_, content)| content)
}

/// The directory of all templates: the given one, or where the package or the checkout has them.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_path_buf());
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let above = executable
        .ancestors()
        .skip(1)
        .flat_map(|dir| [dir.join("share/pi0-edge/templates"), dir.join("target/templates")]);
    above.into_iter().find(|dir| dir.is_dir()).ok_or_else(|| {
        let text = "no templates of full-size bundles are here: the package pi0-edge brings them to \
                    /usr/share/pi0-edge, and a checkout makes them by scripts/jetson/templates.sh; --size small needs none";
        Error::new(ErrorKind::InvalidArgument, text)
    })
}

impl Template {
    /// Reads the template of one kind of policy in one precision.
    pub fn read(templates: &Path, policy: &str, precision: &str) -> Result<Self> {
        let name = format!("{policy}-{precision}");
        let directory = templates.join(&name);
        if !directory.join(RECIPE).is_file() {
            let there: Vec<_> = fs::read_dir(templates)
                .map_err(cannot("list", templates))?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter_map(|n| n.strip_prefix(&format!("{policy}-")).map(str::to_owned))
                .collect();
            let (templates, there) = (templates.display(), there.join(", "));
            let text = format!(
                "{templates} has no template of {policy} in precision {precision:?}; there are: {there}"
            );
            return refuse(text);
        }
        Self::parse(name, Origin::Directory(directory))
    }

    /// Returns the small template of one kind of policy, which needs no files.
    pub fn small(policy: &str, precision: &str) -> Result<Self> {
        match SMALL.iter().find(|(name, _)| *name == policy && precision == "fp32") {
            Some((_, files)) => Self::parse(format!("{policy}-small-fp32"), Origin::Program(files)),
            None => refuse(format!("the small {policy} comes in precision fp32 alone, not in {precision:?}")),
        }
    }

    fn parse(name: String, origin: Origin) -> Result<Self> {
        let recipe: Recipe = origin.json(RECIPE)?;
        let template = Template { manifest: origin.json(MANIFEST)?, weights: recipe.files, name, origin };
        if recipe.version != RECIPE_VERSION {
            let version = recipe.version;
            return Err(template
                .wrong(format!("{RECIPE} has version {version}; this program reads {RECIPE_VERSION}")));
        }
        template.check()?;
        Ok(template)
    }

    /// Its name, such as `pi0-fp16`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.weights.values().map(|f| f.size).sum()
    }

    /// Copies the files that are no weights to `directory`.
    pub fn copy_to(&self, directory: &Path) -> Result<()> {
        let files = self.manifest["files"].as_object().into_iter().flatten();
        files.map(|(name, _)| name).try_for_each(|name| {
            let to = directory.join(name);
            let copied = match &self.origin {
                Origin::Directory(from) => fs::copy(from.join(name), &to).map(drop),
                Origin::Program(files) => fs::write(&to, embedded(files, name)),
            };
            copied.map_err(cannot("write", &to))
        })
    }

    /// The filled bundle's manifest, whose checkpoint names the seed.
    pub fn marked(&self, seed: u64) -> Value {
        let mut manifest = self.manifest.clone();
        let checkpoint = manifest["source"]["checkpoint"].as_str().unwrap_or_default();
        manifest["source"]["checkpoint"] = format!("{checkpoint}, seed {seed}").into();
        manifest
    }

    /// Returns true if `directory` holds this template filled, with the same seed. Something else in its place is an error,
    /// unless it is an older synthetic bundle.
    pub fn is_filled(&self, directory: &Path, seed: u64) -> Result<bool> {
        if !directory.exists() {
            return Ok(false);
        }
        let found: Option<Value> =
            fs::read(directory.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let Some(mut found) = found.filter(|m| m["source"]["format"] == "synthetic") else {
            let directory = directory.display();
            return refuse(format!("{directory} is there and is no synthetic bundle: name another"));
        };
        let sizes_match = self.weights.iter().all(|(name, file)| {
            let size = fs::metadata(directory.join(name)).map(|m| m.len());
            size.is_ok_and(|size| size == file.size) && found["files"][name]["size"] == file.size
        });
        if let Some(files) = found["files"].as_object_mut() {
            files.retain(|name, _| !self.weights.contains_key(name));
        }
        Ok(sizes_match && found == self.marked(seed))
    }

    fn wrong(&self, what: String) -> Error {
        Error::new(ErrorKind::Manifest, format!("template {}: {what}", self.name))
    }

    /// Runs must follow each other within their file, and names must be plain.
    fn check(&self) -> Result<()> {
        for (name, file) in &self.weights {
            if name.contains('/') || name.starts_with('.') {
                return Err(self.wrong(format!("{name:?} is no plain file name")));
            }
            let mut end = 0;
            for run in &file.runs {
                if !matches!(run.dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
                    return Err(self.wrong(format!("{name}: weights of {} cannot be made up", run.dtype)));
                }
                let bytes = run.count.checked_mul(run.dtype.size() as u64);
                match bytes.and_then(|b| b.checked_add(run.offset)) {
                    Some(next) if run.offset >= end && next <= file.size => end = next,
                    _ => return Err(self.wrong(format!("{name}: the run at {} does not fit", run.offset))),
                }
            }
        }
        Ok(())
    }
}
