//! The things that a set of engines was built with and for.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::integrity::hex;

/// The things an engine depends on. It may run only where all of them are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// SHA-256 of the bundle's `manifest.json`, which holds the hash of every other file of the bundle.
    pub bundle: String,
    /// The GPU.
    pub gpu: GpuPin,
    /// TensorRT's version as the library itself states it, such as `10.3.0`.
    pub tensorrt: String,
    /// ONNX Runtime's version and commit, as its library states them.
    pub onnxruntime: String,
}

/// A GPU model, as exactly as an engine depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuPin {
    /// The driver's name for it, such as `Orin`.
    pub name: String,
    /// The compute capability as one number, 87 for 8.7.
    pub compute_capability: u32,
    /// Multiprocessors that are switched on: boards of one name differ in it, and so do a Jetson's power modes.
    pub multiprocessors: u32,
}

impl std::fmt::Display for GpuPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (sm_{}, {} multiprocessors)", self.name, self.compute_capability, self.multiprocessors)
    }
}

impl Pins {
    /// The name of the set's directory: 32 hexadecimal digits of a hash over all pins.
    pub fn key(&self) -> String {
        self.digest(&[&self.bundle, &self.onnxruntime])
    }

    /// The name of the directory for what the builder learns, which outlives any one bundle.
    pub fn timing_key(&self) -> String {
        self.digest(&[])
    }

    fn digest(&self, more: &[&str]) -> String {
        let gpu = format!("{}", self.gpu);
        let mut hasher = Sha256::new();
        for part in [gpu.as_str(), &self.tensorrt].iter().chain(more) {
            // Lengths keep neighbours apart.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hex(&hasher.finalize())[..32].to_owned()
    }

    /// Lists the differences between what a set was built for (`self`) and what is here, in words.
    pub fn differences(&self, here: &Pins) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, built: &str, now: &str| {
            if built != now {
                found.push(format!("{what} {built}, here it is {now}"));
            }
        };
        compare("the bundle with the manifest", short(&self.bundle), short(&here.bundle));
        compare("the GPU", &self.gpu.to_string(), &here.gpu.to_string());
        compare("TensorRT", &self.tensorrt, &here.tensorrt);
        compare("ONNX Runtime", &self.onnxruntime, &here.onnxruntime);
        found
    }
}

/// The first digits of a hash, enough for people to tell two apart.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
pub(super) fn some_pins() -> Pins {
    Pins {
        bundle: "ab".repeat(32),
        gpu: GpuPin { name: "Orin".into(), compute_capability: 87, multiprocessors: 16 },
        tensorrt: "10.3.0".into(),
        onnxruntime: "1.24.4 (0123abc)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_changes_the_key_and_is_named() {
        let pins = some_pins();
        type Change = fn(&mut Pins);
        let changes: [(&str, Change); 6] = [
            ("bundle", |p| p.bundle = "cd".repeat(32)),
            ("GPU", |p| p.gpu.name = "Thor".into()),
            ("GPU", |p| p.gpu.compute_capability = 110),
            ("GPU", |p| p.gpu.multiprocessors = 8),
            ("TensorRT", |p| p.tensorrt = "10.3.1".into()),
            ("ONNX Runtime", |p| p.onnxruntime = "1.24.4 (0123abd)".into()),
        ];
        for (word, change) in changes {
            let mut other = pins.clone();
            change(&mut other);
            assert_ne!(pins.key(), other.key(), "{word}");
            let differences = pins.differences(&other);
            assert_eq!(differences.len(), 1, "{differences:?}");
            assert!(differences[0].contains(word), "{differences:?}");
        }
        assert!(pins.differences(&pins).is_empty());
        assert_eq!(pins.key().len(), 32);
    }

    #[test]
    fn what_the_builder_learned_serves_every_bundle_of_the_machine() {
        let mut other = some_pins();
        other.bundle = "cd".repeat(32);
        assert_eq!(some_pins().timing_key(), other.timing_key());
        other.tensorrt = "10.4.0".into();
        assert_ne!(some_pins().timing_key(), other.timing_key());
    }
}
