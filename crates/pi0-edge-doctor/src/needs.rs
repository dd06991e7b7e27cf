//! The memory that a bundle takes, from the sizes of its graphs' weights.

use std::collections::BTreeMap;

use pi0_edge::Provider;
use serde::Serialize;
use serde_json::Value;

/// TensorRT for RTX took 11 GB to build the prefill of PI0 in fp16, whose weights are 3.7 GB, and less for the other graphs.
const BUILDING: u64 = 3;
/// A run on the CPU at full size took 11.0 GB for 10.4 GB of weights.
const RUNNING_SHARE: u64 = 16;
/// Memory of a CUDA context and the arenas, beside the weights. Assumed, not measured.
const GPU_OVERHEAD: u64 = 512 << 20;

/// Memory of Jetson modules in units of 10⁹ bytes, of which the system takes one or two for itself.
pub const BOARDS: [(&str, u64); 6] = [
    ("Orin Nano 8 GB", 8),
    ("Orin NX 8 GB", 8),
    ("Orin NX 16 GB", 16),
    ("AGX Orin 32 GB", 32),
    ("AGX Orin 64 GB", 64),
    ("AGX Thor 128 GB", 128),
];
/// Left for the system.
const SYSTEM: u64 = 2_000_000_000;

/// The memory that a bundle takes, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryNeeds {
    /// The weights of each graph that has any, in the bundle's precision.
    pub weights: BTreeMap<String, u64>,
    /// The table of token rows. It is mapped, and a run touches the rows of its prompts.
    pub token_table: u64,
    /// `fp32`, `fp16` or `bf16`.
    pub precision: String,
}

impl MemoryNeeds {
    pub(crate) fn of(manifest: &Value) -> MemoryNeeds {
        let file = |name: &str| manifest["files"][name]["size"].as_u64().unwrap_or(0);
        let weights = manifest["graphs"].as_object().into_iter().flatten().map(|(name, graph)| {
            let data = format!("{}.data", graph["file"].as_str().unwrap_or_default());
            (name.clone(), file(&data))
        });
        MemoryNeeds {
            weights: weights.filter(|(_, size)| *size > 0).collect(),
            token_table: file(manifest["token_embedding"]["file"].as_str().unwrap_or_default()),
            precision: manifest["precision"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Bytes of all graphs' weights.
    pub fn all_weights(&self) -> u64 {
        self.weights.values().sum()
    }

    /// Bytes of TensorRT's engines, on disk and in memory: they hold the weights in the graphs' own precision.
    pub fn engines(&self) -> u64 {
        self.all_weights()
    }

    /// Bytes that building the engine of the largest graph takes at most.
    pub fn building(&self) -> u64 {
        BUILDING * self.weights.values().max().copied().unwrap_or(0)
    }

    /// Bytes that a run takes at most. `expands`: the processor has no fp16 kernels, so that weights become fp32, as ONNX
    /// Runtime does on x86_64.
    pub fn running(&self, provider: Provider, expands: bool) -> u64 {
        let on_cpu = provider == Provider::Cpu;
        let weights = self.all_weights() * if on_cpu && expands && self.precision == "fp16" { 2 } else { 1 };
        weights + weights / RUNNING_SHARE + if on_cpu { 0 } else { GPU_OVERHEAD }
    }
}

/// Says whether so many bytes fit a board of `memory` · 10⁹ bytes: `yes`, `tight` where less than 2 · 10⁹ are left for the
/// system, or `no`.
pub fn fits(bytes: u64, memory: u64) -> &'static str {
    match (memory * 1_000_000_000).checked_sub(bytes) {
        Some(SYSTEM..) => "yes",
        Some(_) => "tight",
        None => "no",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// PI0 at full size in fp16.
    fn pi0() -> MemoryNeeds {
        MemoryNeeds::of(&json!({
            "precision": "fp16",
            "token_embedding": {"file": "token_embedding.bin"},
            "graphs": {
                "vision_encoder": {"file": "vision_encoder.onnx"},
                "prefix_prefill": {"file": "prefix_prefill.onnx"},
                "time_conditioning": {"file": "time_conditioning.onnx"},
                "denoise_step": {"file": "denoise_step.onnx"}
            },
            "files": {
                "vision_encoder.onnx.data": {"size": 832_000_000},
                "prefix_prefill.onnx.data": {"size": 3_747_000_000u64},
                "denoise_step.onnx.data": {"size": 625_000_000},
                "token_embedding.bin": {"size": 1_053_000_000}
            }
        }))
    }

    #[test]
    fn needs_are_those_of_the_weights() {
        let needs = pi0();
        assert_eq!(needs.weights.len(), 3);
        assert_eq!((needs.all_weights(), needs.token_table), (5_204_000_000, 1_053_000_000));
        assert_eq!(needs.building(), 11_241_000_000);
        assert_eq!(needs.running(Provider::Cpu, false), 5_529_250_000);
        assert_eq!(needs.running(Provider::Cpu, true), 11_058_500_000);
        assert_eq!(needs.running(Provider::Cuda, true), 5_529_250_000 + GPU_OVERHEAD);
        assert_eq!(MemoryNeeds::of(&json!({})), MemoryNeeds::default());
    }

    #[test]
    fn a_board_has_room_for_the_system_too() {
        assert_eq!([7_999_999_999, 6_000_000_000, 8_000_000_001].map(|n| fits(n, 8)), ["tight", "yes", "no"]);
    }
}
