//! Which provider took which node of a graph.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::ptr::null;

use ort::session::Session;
use ort::sys::{OrtEpAssignedNode, OrtEpAssignedSubgraph, OrtStatusPtr};
use ort::{AsPointer, ortsys};

use crate::error::Result;
use crate::provider::Provider;

/// The session option that makes ONNX Runtime keep what [`Placement::read`] reads.
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// The nodes of one graph by the provider that runs them, as ONNX Runtime names providers. Nodes are as they were
/// when the providers chose, before fusion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// Operator and name of each node, by provider.
    pub(super) nodes: BTreeMap<String, Vec<String>>,
}

/// The name ONNX Runtime knows a provider by.
pub(super) fn name_of(provider: Provider) -> &'static str {
    match provider {
        Provider::Cpu => "CPUExecutionProvider",
        Provider::Cuda => "CUDAExecutionProvider",
        Provider::TensorRt => "TensorrtExecutionProvider",
    }
}

impl Placement {
    /// Reads what a session recorded while it was made.
    pub(super) fn read(session: &Session) -> ort::Result<Self> {
        let (mut parts, mut count): (*const *const OrtEpAssignedSubgraph, usize) = (null(), 0);
        ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &mut parts, &mut count)?];
        let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // SAFETY: ONNX Runtime returned `count` subgraphs at `parts`; they belong to the session, which outlives this.
        for part in unsafe { slice(parts, count) } {
            let (mut of_part, mut count): (*const *const OrtEpAssignedNode, usize) = (null(), 0);
            ortsys![unsafe EpAssignedSubgraph_GetNodes(*part, &mut of_part, &mut count)?];
            let provider = text(*part, ort::api().EpAssignedSubgraph_GetEpName)?;
            let list = nodes.entry(provider).or_default();
            // SAFETY: as above, for the nodes of `part`.
            for node in unsafe { slice(of_part, count) } {
                let operator = text(*node, ort::api().EpAssignedNode_GetOperatorType)?;
                let name = text(*node, ort::api().EpAssignedNode_GetName)?;
                list.push(format!("{operator} {name}"));
            }
        }
        Ok(Placement { nodes })
    }

    /// Insists that `provider` took every node of `graph`.
    pub(super) fn expect(&self, graph: &str, provider: Provider) -> Result<()> {
        let wanted = name_of(provider);
        let strays: Vec<(&str, &[String])> = self
            .nodes
            .iter()
            .filter(|(name, nodes)| *name != wanted && !nodes.is_empty())
            .map(|(name, nodes)| (name.as_str(), nodes.as_slice()))
            .collect();
        if strays.is_empty() && self.nodes.contains_key(wanted) {
            return Ok(());
        }
        Err(err!(
            Provider,
            "{graph}: {provider} was asked for and runs {} of {} nodes; {}. Export the bundle for {provider}, or use \
             an ONNX Runtime whose {provider} provider has these operators",
            self.nodes.get(wanted).map_or(0, Vec::len),
            self.nodes.values().map(Vec::len).sum::<usize>(),
            if strays.is_empty() {
                "ONNX Runtime recorded no placement".to_owned()
            } else {
                let list = strays.iter().map(|(name, nodes)| format!("{name} runs {}", some_of(nodes)));
                list.collect::<Vec<_>>().join("; ")
            }
        ))
    }
}

/// The first few nodes, and how many more there are: an error has to be readable.
fn some_of(nodes: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = nodes.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// # Safety
/// `items` must point at `count` valid pointers that outlive `'a`, unless `count` is zero.
unsafe fn slice<'a, T>(items: *const *const T, count: usize) -> &'a [*const T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(items, count) }
}

/// One text property of an object that ONNX Runtime owns.
fn text<T>(
    of: *const T,
    get: unsafe extern "system" fn(*const T, *mut *const c_char) -> OrtStatusPtr,
) -> ort::Result<String> {
    let mut out = null();
    // SAFETY: `of` belongs to a live session (see the callers) and `out` is a valid place for the result.
    unsafe { ort::Error::result_from_status(get(of, &mut out)) }?;
    // SAFETY: on success `out` is a NUL-terminated string owned by `of`.
    Ok(unsafe { CStr::from_ptr(out) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn placement(parts: &[(&str, &[&str])]) -> Placement {
        let nodes =
            parts.iter().map(|(p, nodes)| ((*p).to_owned(), nodes.iter().map(|n| (*n).to_owned()).collect()));
        Placement { nodes: nodes.collect() }
    }

    #[test]
    fn every_node_has_to_be_where_it_was_asked_for() {
        let all = placement(&[("CUDAExecutionProvider", &["MatMul a", "Add b"])]);
        assert!(all.expect("denoise_step", Provider::Cuda).is_ok());
        let error = all.expect("denoise_step", Provider::Cpu).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
    }

    #[test]
    fn strays_are_named() {
        let mixed = placement(&[
            ("CUDAExecutionProvider", &["MatMul a"]),
            ("CPUExecutionProvider", &["Cos c", "Range r"]),
        ]);
        let error = mixed.expect("prefix_prefill", Provider::Cuda).unwrap_err().to_string();
        for word in
            ["prefix_prefill", "runs 1 of 3 nodes", "CPUExecutionProvider runs Cos c, Range r", "Export"]
        {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    }

    #[test]
    fn a_graph_without_a_recorded_placement_is_not_taken_on_trust() {
        let error = placement(&[]).expect("vision_encoder", Provider::Cuda).unwrap_err().to_string();
        assert!(error.contains("recorded no placement"), "{error}");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let names: Vec<String> = (0..20).map(|i| format!("Add {i}")).collect();
        let nodes = BTreeMap::from([("CPUExecutionProvider".to_owned(), names)]);
        let error = Placement { nodes }.expect("g", Provider::Cuda).unwrap_err().to_string();
        assert!(error.contains("Add 11 and 8 more"), "{error}");
    }
}
