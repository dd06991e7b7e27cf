//! The memory that an inference needs, worked out from a manifest before any of it is asked for.

use super::graphs::{CACHE, Dim, GraphName, PREFIX, STEPS, VIEWS};
use super::manifest::Manifest;
use crate::error::Result;
use crate::limits::{MAX_NUM_STEPS, MAX_WORKING_BYTES};

impl Manifest {
    /// Returns the bytes that one inference over all cameras and the longest prompt needs: every input and output of the
    /// graphs, and the largest of the attention scores and of the hidden rows between them, in f32. Weights are not
    /// counted, nor what a provider needs for itself.
    pub fn working_bytes(&self) -> u128 {
        let d = &self.dimensions;
        let views = self.cameras.len();
        let longest = views * d.tokens_per_view + self.prompt.max_tokens;
        let prefix = self.prefix_bucket.map_or(longest, |bucket| longest.next_multiple_of(bucket));
        let cache = prefix + usize::from(self.state_in_prefill);
        let suffix = self.suffix_len();
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Named(name) => match name.as_str() {
                VIEWS => views,
                PREFIX => prefix,
                CACHE => cache,
                STEPS => MAX_NUM_STEPS,
                // The signature has no others.
                _ => 1,
            },
        };
        // No size is above 2^24, so that no product of five of them is above what the type holds.
        let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u128).product::<u128>();
        let ports = GraphName::ALL.iter().flat_map(|&name| {
            let (inputs, outputs) = self.signature(name);
            inputs.into_iter().chain(outputs)
        });
        let tensors = ports.map(|t| {
            let sizes: Vec<usize> = t.shape.iter().map(size).collect();
            product(&sizes) * t.dtype.size() as u128
        });
        let scores = [
            product(&[views, d.vision_heads, d.tokens_per_view, d.tokens_per_view]),
            product(&[d.query_heads, prefix, prefix]),
            product(&[d.query_heads, suffix, cache + suffix]),
        ];
        let hidden = [
            product(&[views, d.tokens_per_view, d.vision_mlp]),
            product(&[prefix, d.prefix_mlp]),
            product(&[suffix, d.expert_mlp]),
        ];
        let largest = |of: [u128; 3]| of.into_iter().max().unwrap_or(0) * 4;
        tensors.sum::<u128>() + largest(scores) + largest(hidden)
    }

    pub(super) fn check_working_bytes(&self) -> Result<()> {
        let bytes = self.working_bytes();
        ensure!(
            bytes <= u128::from(MAX_WORKING_BYTES),
            Manifest,
            "manifest.json: dimensions, cameras and prompt.max_tokens need {} MiB for one inference, at most {} are allowed",
            bytes >> 20,
            MAX_WORKING_BYTES >> 20
        );
        Ok(())
    }
}
