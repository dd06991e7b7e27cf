//! A small, complete bundle, and the means to break it.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod onnx;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use onnx::Model;
use pi0_edge::bundle::{Bundle, Verify};
use pi0_edge::{Error, ErrorKind};
use pi0_edge_golden::write_npy;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const GRAPHS: [&str; 4] = ["vision_encoder", "prefix_prefill", "time_conditioning", "denoise_step"];

/// A frame of noise that is the same wherever it is made: RGB, `[height, width, 3]`.
pub fn noise_frame(height: usize, width: usize) -> Vec<u8> {
    let seed = (height * 1000 + width) as u32;
    let byte = |i: u32| {
        let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
        x ^= x >> 15;
        x = x.wrapping_mul(2_246_822_519);
        x ^= x >> 13;
        (x >> 24) as u8
    };
    (0..(height * width * 3) as u32).map(byte).collect()
}

/// Everything a bundle is made of, before it is written.
pub struct Fixture {
    pub manifest: Value,
    pub graphs: BTreeMap<&'static str, Model>,
    /// Files beside manifest and graphs.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A bundle on disk.
pub struct Written {
    pub dir: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let manifest = manifest();
        let mut files = BTreeMap::new();
        let mut graphs = BTreeMap::new();
        for name in GRAPHS {
            files.insert(format!("{name}.onnx.data"), vec![7; 8192 + 64]);
            graphs.insert(name, model(&manifest, name));
        }
        files.insert(
            "token_embedding.bin".into(),
            f32_bytes(&(0..16 * 8).map(|i| i as f32).collect::<Vec<_>>()),
        );
        files.insert("tokenizer.json".into(), tokenizer().to_string().into_bytes());
        golden_files(&mut files);
        Fixture { manifest, graphs, files }
    }

    /// Writes the bundle with sizes and hashes as they are, which a hostile exporter would do as well.
    pub fn write(mut self) -> Written {
        let dir = tempfile::tempdir().unwrap();
        for (name, model) in &self.graphs {
            self.files.insert(format!("{name}.onnx"), model.encode());
        }
        let mut table = serde_json::Map::new();
        for (path, bytes) in &self.files {
            let target = dir.path().join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, bytes).unwrap();
            table.insert(path.clone(), file_entry(bytes));
        }
        if self.manifest["files"].is_null() {
            self.manifest["files"] = Value::Object(table);
        }
        std::fs::write(dir.path().join("manifest.json"), self.manifest.to_string()).unwrap();
        Written { dir }
    }

    /// The manifest with its table of files, as [`write`](Self::write) would write it.
    pub fn manifest_json(self) -> Value {
        let written = self.write();
        serde_json::from_slice(&std::fs::read(written.path("manifest.json")).unwrap()).unwrap()
    }
}

impl Written {
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn open(&self) -> pi0_edge::Result<Bundle> {
        self.open_with(Verify::Full)
    }

    pub fn open_with(&self, level: Verify) -> pi0_edge::Result<Bundle> {
        Bundle::open(self.dir.path(), level, &mut |_, _| {})
    }
}

/// Asserts that `result` is an error of a kind whose text has all the words.
pub fn assert_refused<T>(result: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let Err(error) = result else { panic!("accepted, though it should be refused for {words:?}") };
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 10_000, "{text:?}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

pub fn file_entry(bytes: &[u8]) -> Value {
    let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    json!({"size": bytes.len(), "sha256": hash})
}

pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn npy(shape: &[usize], values: Vec<f32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_npy(&mut bytes, ArrayD::from_shape_vec(shape, values).unwrap().view()).unwrap();
    bytes
}

/// A graph with the manifest's signature, one node, and one tensor of each kind.
fn model(manifest: &Value, name: &str) -> Model {
    let list = |key: &str| -> Vec<Vec<u8>> {
        manifest["graphs"][name][key].as_array().unwrap().iter().map(onnx::value_info).collect()
    };
    let data = format!("{name}.onnx.data");
    Model {
        ir_version: 10,
        opsets: vec![("", 20)],
        nodes: vec![onnx::node("MatMul", &[])],
        initializers: vec![
            onnx::inline("small", &[2], &[0; 8]),
            onnx::external("w0", &[4, 4], &[("location", &data), ("offset", "0"), ("length", "64")]),
            onnx::external("w1", &[16], &[("location", &data), ("offset", "8192"), ("length", "64")]),
        ],
        inputs: list("inputs"),
        outputs: list("outputs"),
        graph_extra: Vec::new(),
        model_extra: Vec::new(),
    }
}

/// The manifest without its table of files.
pub fn manifest() -> Value {
    let cache = |template: &str| -> Vec<Value> {
        (0..2)
            .flat_map(|i| [format!("{template}.{i}.key"), format!("{template}.{i}.value")])
            .map(|name| json!({"name": name, "dtype": "f32", "shape": [1, "prefix", 6]}))
            .collect()
    };
    let f32_tensor = |name: &str, shape: Value| json!({"name": name, "dtype": "f32", "shape": shape});
    let mut denoise = vec![
        f32_tensor("x_t", json!([1, 5, 7])),
        json!({"name": "step", "dtype": "i64", "shape": [1]}),
        f32_tensor("schedule", json!(["steps", 3])),
        f32_tensor("time_table", json!(["steps", 10])),
        f32_tensor("state", json!([1, 9])),
        f32_tensor("prev_actions", json!([1, 5, 7])),
        f32_tensor("prefix_weights", json!([1, 5, 1])),
        f32_tensor("rope_cos", json!([6, 3])),
        f32_tensor("rope_sin", json!([6, 3])),
    ];
    denoise.extend(cache("past_key_values"));
    json!({
        "format_version": 1, "policy": "pi0", "exporter": "test 0", "precision": "fp32", "target": "cpu", "opset": 20,
        "source": {
            "format": "lerobot", "checkpoint": "tiny", "model_sha256": "ab".repeat(32), "dtype": "float32",
            "conventions": {"letterbox_pad": -1.0}
        },
        "dimensions": {
            "image_height": 28, "image_width": 42, "patch_size": 14, "tokens_per_view": 6, "prefix_width": 8,
            "prefix_mlp": 16, "expert_width": 10, "expert_mlp": 20, "layers": 2, "query_heads": 4, "kv_heads": 1,
            "head_dim": 6, "vision_width": 12, "vision_layers": 2, "vision_heads": 3, "vision_mlp": 24,
            "vocab_size": 16, "action_horizon": 5
        },
        "cameras": [
            {"name": "observation.images.base", "required": true},
            {"name": "observation.images.wrist", "required": false},
            {"name": "observation.images.side", "required": false}
        ],
        "rename": {"observation.images.top": "observation.images.base", "observation.joints": "observation.state"},
        "image": {"resize": "bilinear", "antialias": false, "pad_value": -1.0, "pad_side": "center"},
        "state": {
            "name": "observation.state", "dim": 3, "padded_dim": 9, "names": null,
            "normalization": {"mode": "mean_std", "eps": 1e-8, "mean": [0.5, -1.0, 2.0], "std": [2.0, 0.25, 1.5]}
        },
        "action": {
            "name": "action", "dim": 2, "padded_dim": 7, "names": ["lift", "gripper"],
            "normalization": {"mode": "min_max", "eps": 1e-8, "min": [-1.0, 0.0], "max": [1.0, 4.0]},
            "relative_mask": [true, false], "limits": null
        },
        "prompt": {"format": "append_newline", "max_tokens": 6, "default": null, "tokenizer": "tokenizer.json"},
        "flow": {"convention": "noise_at_one", "num_steps": 10, "min_period": 0.004, "max_period": 4.0},
        "rope": {"theta": 10000.0, "inv_freq": "f32"},
        "token_embedding": {"file": "token_embedding.bin", "dtype": "f32", "rows": 16, "width": 8},
        "graphs": {
            "vision_encoder": {
                "file": "vision_encoder.onnx",
                "inputs": [f32_tensor("pixel_values", json!(["views", 3, 28, 42]))],
                "outputs": [f32_tensor("image_embeds", json!(["views", 6, 8]))]
            },
            "prefix_prefill": {
                "file": "prefix_prefill.onnx",
                "inputs": [
                    f32_tensor("prefix_embeds", json!([1, "prefix", 8])),
                    f32_tensor("rope_cos", json!(["prefix", 3])),
                    f32_tensor("rope_sin", json!(["prefix", 3]))
                ],
                "outputs": cache("present")
            },
            "time_conditioning": {
                "file": "time_conditioning.onnx",
                "inputs": [f32_tensor("time_embedding", json!(["steps", 10]))],
                "outputs": [f32_tensor("time_table", json!(["steps", 10]))]
            },
            "denoise_step": {
                "file": "denoise_step.onnx",
                "inputs": denoise,
                "outputs": [f32_tensor("x_next", json!([1, 5, 7])), f32_tensor("v_t", json!([1, 5, 7]))]
            }
        },
        "golden": "golden/golden.json",
        "files": null
    })
}

/// A tokenizer of whole words that puts BOS first, with padding and truncation that the runtime has to turn off.
pub fn tokenizer() -> Value {
    let words =
        ["<pad>", "<eos>", "<bos>", "<unk>", "\n", "pick", "\u{2581}up", "\u{2581}the", "\u{2581}cube"];
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = words.iter().map(|&word| word.to_owned()).chain(bytes);
    let vocab: serde_json::Map<String, Value> = pieces.zip(0..).map(|(p, id)| (p, json!(id))).collect();
    let added = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": true, "special": false})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [added(5), added(6), added(7), added(8)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": []
        }
    })
}

fn golden_files(files: &mut BTreeMap<String, Vec<u8>>) {
    let stages = ["pixel_values", "image_embeds", "keys", "values", "v_t", "actions_normalized", "actions"];
    let mut expected = json!({"tokens": [2, 5, 8, 4]});
    for (i, stage) in stages.iter().enumerate() {
        let path = format!("one/{stage}.npy");
        files.insert(format!("golden/{path}"), npy(&[2, 3], (0..6).map(|v| (v * (i + 1)) as f32).collect()));
        expected[stage] = json!({"file": path, "stride": i + 1});
    }
    files.insert("golden/one/noise.npy".into(), npy(&[5, 7], vec![0.5; 35]));
    files.insert("golden/one/observation.json".into(), b"{}".to_vec());
    let golden = json!({
        "format_version": 1,
        "reference": {"lerobot": "0.6.1", "transformers": "5.5.4", "torch": "2.11.0", "dtype": "float32"},
        "tolerance": {"stages": 1e-5, "actions": 1e-5},
        "cases": [{"name": "one", "observation": "one/observation.json", "noise": "one/noise.npy", "num_steps": 4,
                   "expected": expected}]
    });
    files.insert("golden/golden.json".into(), golden.to_string().into_bytes());
}

/// Replaces a file's bytes without telling the manifest.
pub fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}
