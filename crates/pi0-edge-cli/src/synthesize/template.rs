//! A template: a bundle without its weights, and what to fill them with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pi0_edge::bundle::Dtype;
use pi0_edge::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::Value;

pub const MANIFEST: &str = "manifest.json";
const RECIPE: &str = "weights.json";
const RECIPE_VERSION: u32 = 1;

/// What the weights files hold.
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
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many values.
    pub count: u64,
    /// Their type.
    pub dtype: Dtype,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation; of a constant, zero.
    pub std: f64,
}

/// A template that has been read.
pub struct Template {
    directory: PathBuf,
    name: String,
    /// The manifest as it will be, but for the weights' hashes.
    pub manifest: Value,
    /// The files to fill, by name.
    pub weights: BTreeMap<String, WeightsFile>,
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
        let text = "no templates of full-size bundles are installed; in a checkout, make them by \
                    .venv/bin/python scripts/make_templates.py target/templates";
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
                .map_err(|e| cannot("list", templates, e))?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter_map(|n| n.strip_prefix(&format!("{policy}-")).map(str::to_owned))
                .collect();
            let text = format!(
                "{} has no template of {policy} in precision {precision:?}; there are: {}",
                templates.display(),
                there.join(", ")
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let recipe: Recipe = parse(&directory.join(RECIPE))?;
        let template =
            Template { manifest: parse(&directory.join(MANIFEST))?, weights: recipe.files, name, directory };
        if recipe.version != RECIPE_VERSION {
            return Err(template.wrong(format!(
                "{RECIPE} has version {}; this program reads {RECIPE_VERSION}",
                recipe.version
            )));
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

    /// The files that are copied as they are.
    pub fn copied(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        let files = self.manifest["files"].as_object().into_iter().flatten();
        files.map(|(name, _)| (name.as_str(), self.directory.join(name)))
    }

    /// What the filled bundle's manifest says of its checkpoint.
    pub fn marked(&self, seed: u64) -> Value {
        let mut manifest = self.manifest.clone();
        let checkpoint = manifest["source"]["checkpoint"].as_str().unwrap_or_default();
        manifest["source"]["checkpoint"] = format!("{checkpoint}, seed {seed}").into();
        manifest
    }

    /// Whether `directory` holds this template filled, with the same seed. Something else in its place is an error,
    /// unless it is an older synthetic bundle.
    pub fn is_filled(&self, directory: &Path, seed: u64) -> Result<bool> {
        if !directory.exists() {
            return Ok(false);
        }
        let found: Option<Value> =
            fs::read(directory.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let Some(mut found) = found.filter(|m| m["source"]["format"] == "synthetic") else {
            let text = format!("{} is there and is no synthetic bundle: name another", directory.display());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
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
        Error::new(ErrorKind::Manifest, format!("template {}: {what}", self.directory.display()))
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

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|e| cannot("read", path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::with_source(ErrorKind::Manifest, format!("{} is malformed", path.display()), e))
}

/// An error of the file system.
pub fn cannot(what: &str, path: &Path, e: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Io, format!("cannot {what} {}", path.display()), e)
}
