//! The CUDA graphs that one session has captured, and the run options that replay them.
//!
//! ONNX Runtime keeps captured graphs by an id *and the thread that captured them*, and captures by itself whenever a
//! run names an id that its thread has no graph for: it then runs the session three times over before the call
//! returns, two runs until its memory no longer changes and one to capture. That is hidden work, and with an input that
//! is also the output the result would be three steps in place of one. So a run names an id only if this thread
//! captured it before, on purpose; every other run says that it wants none.

use std::thread::ThreadId;

use super::run_options::RunOptions;

/// Run option: which captured graph a run replays, -1 for none.
const GRAPH_ID: &str = "gpu_graph_id";
/// Run option: return as soon as the work is queued.
const DO_NOT_WAIT: (&str, &str) = ("disable_synchronize_execution_providers", "1");

/// Tells the graphs of one session apart: the shape everything was bound for. At least 1.
pub(super) type GraphId = u32;

pub(super) struct Captures {
    enabled: bool,
    /// For runs that neither capture nor replay.
    plain: RunOptions,
    captured: Vec<(ThreadId, GraphId, RunOptions)>,
}

impl Captures {
    /// `enabled`: the session was made to capture graphs, so that its runs have to say which.
    pub(super) fn new(enabled: bool) -> ort::Result<Self> {
        let plain = if enabled { vec![DO_NOT_WAIT, (GRAPH_ID, "-1")] } else { vec![DO_NOT_WAIT] };
        Ok(Captures { enabled, plain: RunOptions::new(&plain)?, captured: Vec::new() })
    }

    /// Options that make the calling thread capture the graph `id`; none if it has, or nothing is to be captured.
    pub(super) fn missing(&self, id: GraphId) -> ort::Result<Option<RunOptions>> {
        if !self.enabled || self.find(id).is_some() {
            return Ok(None);
        }
        RunOptions::new(&[DO_NOT_WAIT, (GRAPH_ID, &id.to_string())]).map(Some)
    }

    /// Keeps the options of a graph that the calling thread has captured.
    pub(super) fn insert(&mut self, id: GraphId, options: RunOptions) {
        self.captured.push((std::thread::current().id(), id, options));
    }

    /// No more captures: one was refused.
    pub(super) fn give_up(&mut self) {
        self.enabled = false;
    }

    /// The options a run on the calling thread takes.
    pub(super) fn options(&self, id: GraphId) -> &RunOptions {
        self.find(id).unwrap_or(&self.plain)
    }

    /// Returns true if a run on the calling thread replays a graph.
    pub(super) fn has(&self, id: GraphId) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: GraphId) -> Option<&RunOptions> {
        let thread = std::thread::current().id();
        self.captured.iter().find(|(t, i, _)| (*t, *i) == (thread, id)).map(|(_, _, options)| options)
    }
}
