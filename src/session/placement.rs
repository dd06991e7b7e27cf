//! Which provider took which node of a graph.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::ptr::null;

use ort::AsPointer;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtApi, OrtApiBase, OrtEpAssignedNode, OrtEpAssignedSubgraph, OrtSession, OrtStatusPtr};

use super::graph_error;
use crate::error::{Error, Result};
use crate::lookup::TELLS_PLACEMENT;
use crate::provider::Provider;

/// The session option that makes ONNX Runtime keep what [`Placement::read`] reads.
const RECORD: &str = "session.record_ep_graph_assignment_info";
/// The session option that refuses a session of which the CPU provider, asked for or not, would run a node.
const REFUSE: &str = "session.disable_cpu_ep_fallback";

type Text<T> = unsafe extern "system" fn(*const T, *mut *const c_char) -> OrtStatusPtr;
type List<T, U> = unsafe extern "system" fn(*const T, *mut *const *const U, *mut usize) -> OrtStatusPtr;

/// ONNX Runtime's functions that tell a session's placement, in the order of its interface. `ort` is asked for the
/// interface of 1.20, so that it takes every library since, and declares nothing newer.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Functions {
    of_session: List<OrtSession, OrtEpAssignedSubgraph>,
    provider_of: Text<OrtEpAssignedSubgraph>,
    nodes_of: List<OrtEpAssignedSubgraph, OrtEpAssignedNode>,
    name_of: Text<OrtEpAssignedNode>,
    domain_of: Text<OrtEpAssignedNode>,
    operator_of: Text<OrtEpAssignedNode>,
}

/// The place of the first of them among the functions of the interface. Places never change.
const PLACE: usize = 407;
/// As many functions has the interface of 1.20, which is where the counting began.
const _: () = assert!(size_of::<OrtApi>() == 285 * size_of::<usize>());

impl Functions {
    /// Finds them in a library of this version, if it has them. An older one is not asked: it would print an error.
    pub(super) fn of(base: &OrtApiBase, version: &[u64]) -> Option<&'static Functions> {
        if version < TELLS_PLACEMENT.as_slice() {
            return None;
        }
        // SAFETY: the base's own function, which takes any number and returns null for an interface it does not have.
        let api = unsafe { (base.GetApi)(TELLS_PLACEMENT[1] as u32) };
        // SAFETY: an interface is a table of pointers to functions, a constant of the library, and that of 1.24 has
        // these six at this place.
        unsafe { api.cast::<usize>().wrapping_add(PLACE).cast::<Functions>().as_ref() }
            .filter(|_| !api.is_null())
    }
}

/// Has the session to be made keep to `provider`: what it does is recorded for [`Placement::read`] where there are
/// functions to read it, and else a session that does otherwise is refused.
pub(super) fn demand(
    builder: SessionBuilder,
    functions: Option<&Functions>,
    provider: Provider,
) -> ort::Result<SessionBuilder> {
    match (functions, provider) {
        (Some(_), _) => Ok(builder.with_config_entry(RECORD, "1")?),
        // There is no other that could take a node, and ONNX Runtime calls the option a contradiction.
        (None, Provider::Cpu) => Ok(builder),
        (None, Provider::Cuda | Provider::TensorRt) => Ok(builder.with_config_entry(REFUSE, "1")?),
    }
}

/// Makes the error of a session that was not made, `context` being what could not be done.
pub(super) fn not_made(
    context: impl std::fmt::Display,
    error: ort::Error<impl Sized>,
    provider: Provider,
) -> Error {
    if !error.message().contains("fallback to CPU EP has been explicitly disabled") {
        return graph_error(context, error);
    }
    err!(
        Provider,
        "{context}: {provider} was asked for and does not take every node of the graph; ONNX Runtime {}.{} and newer \
         name those it leaves. Export the bundle with --target for it, or use an ONNX Runtime whose {provider} \
         provider has these operators",
        TELLS_PLACEMENT[0],
        TELLS_PLACEMENT[1]
    )
}

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
    /// Reads what a session recorded while it was made, see [`demand`].
    fn read(session: &Session, functions: &Functions) -> ort::Result<Self> {
        let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in parts(session.ptr(), functions.of_session)? {
            let list = nodes.entry(text(*part, functions.provider_of)?).or_default();
            for node in parts(*part, functions.nodes_of)? {
                let operator = text(*node, functions.operator_of)?;
                let name = text(*node, functions.name_of)?;
                list.push(format!("{operator} {name}"));
            }
        }
        Ok(Placement { nodes })
    }

    /// Insists that `provider` took every node of `graph`.
    fn expect(&self, graph: &str, provider: Provider) -> Result<()> {
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

/// Returns which provider took which node of `graph`, where ONNX Runtime tells.
///
/// # Errors
/// [`ErrorKind::Provider`](crate::ErrorKind::Provider) if another than `provider` took one.
pub(super) fn verify(
    session: &Session,
    functions: Option<&Functions>,
    graph: &str,
    provider: Provider,
) -> Result<Placement> {
    // Of an older ONNX Runtime the session would not have been made, see `demand`.
    let Some(functions) = functions else { return Ok(Placement::default()) };
    let placement = Placement::read(session, functions)
        .map_err(|e| graph_error(format_args!("{graph}: its placement cannot be read"), e))?;
    placement.expect(graph, provider)?;
    Ok(placement)
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

/// The parts of an object that ONNX Runtime owns, for as long as the session lives.
fn parts<'a, T, U>(of: *const T, get: List<T, U>) -> ort::Result<&'a [*const U]> {
    let (mut items, mut count): (*const *const U, usize) = (null(), 0);
    // SAFETY: `of` belongs to a live session (see the callers) and both are valid places for a result.
    unsafe { ort::Error::result_from_status(get(of, &mut items, &mut count)) }?;
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: ONNX Runtime returned `count` parts at `items`; they belong to the session, which outlives this.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// One text property of an object that ONNX Runtime owns.
fn text<T>(of: *const T, get: Text<T>) -> ort::Result<String> {
    let mut out = null();
    // SAFETY: `of` belongs to a live session (see the callers) and `out` is a valid place for the result.
    unsafe { ort::Error::result_from_status(get(of, &mut out)) }?;
    // SAFETY: on success `out` is a NUL-terminated string owned by `of`.
    Ok(unsafe { CStr::from_ptr(out) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;
    use crate::error::ErrorKind;

    fn placement(parts: &[(&str, &[&str])]) -> Placement {
        let nodes =
            parts.iter().map(|(p, nodes)| ((*p).to_owned(), nodes.iter().map(|n| (*n).to_owned()).collect()));
        Placement { nodes: nodes.collect() }
    }

    /// The settings of a session of a library that does not tell placement, over one that does: the graphs of a bundle
    /// with no provider that takes them, so that the CPU's would.
    #[test]
    fn strays_are_refused_where_they_cannot_be_named() {
        let environment = Environment::get(None).unwrap();
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-tiny/denoise_step.onnx");
        let make = |functions, provider| {
            let builder = Session::builder(environment.inner()).unwrap();
            demand(builder, functions, provider)
                .unwrap()
                .commit_from_file(model)
                .map_err(|e| not_made("denoise_step", e, provider))
        };
        let error = make(None, Provider::Cuda).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        let text = error.to_string();
        for word in ["denoise_step", "cuda was asked for", "1.24 and newer name those", "--target"] {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        let session = make(None, Provider::Cpu).unwrap();
        assert_eq!(verify(&session, None, "denoise_step", Provider::Cpu).unwrap(), Placement::default());
        if let Some(functions) = environment.placement() {
            let session = make(Some(functions), Provider::Cpu).unwrap();
            let placement = verify(&session, Some(functions), "denoise_step", Provider::Cpu).unwrap();
            assert!(placement.nodes["CPUExecutionProvider"].len() > 100);
        }
    }

    #[test]
    fn an_older_library_is_not_asked_for_what_it_lacks() {
        unsafe extern "system" fn asked(_version: u32) -> *const OrtApi {
            panic!("asked");
        }
        unsafe extern "system" fn version() -> *const c_char {
            c"1.23.2".as_ptr()
        }
        let base = OrtApiBase { GetApi: asked, GetVersionString: version };
        assert!(Functions::of(&base, &[1, 23, 2]).is_none());
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
