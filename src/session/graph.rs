//! One subgraph of the policy: its session, and where its inputs and outputs live.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::binding::{Binding, Side};
use super::environment::Environment;
use super::graph_error;
use super::placement::{self, Placement};
use super::provider;
use super::tensors::{Storage, TensorId, Tensors};
use super::workers::Workers;
use crate::bundle::{Dtype, GraphSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::Provider;

/// How one graph is loaded.
#[derive(Debug, Clone)]
pub struct GraphOptions {
    /// What runs the graph: all of it.
    pub provider: Provider,
    /// Threads that share one operator's work, the calling thread included.
    pub threads: usize,
    /// Copy weights once into the layout the matrix kernels read fastest (costs load time and anonymous memory
    /// of the weights' size; the mapped file is let go). Without it the weights stay a file map that processes
    /// share and the kernel may evict.
    pub prepack: bool,
    /// Whether worker threads spin while a run is going on. They always sleep between runs.
    pub spin: bool,
}

/// Where one port was bound.
struct Port {
    name: CString,
    label: String,
    dtype: Dtype,
    storage: Option<Arc<Storage>>,
    address: usize,
    bytes: usize,
}

/// A loaded subgraph, bound to tensors at fixed addresses.
pub struct Graph {
    name: &'static str,
    session: Session,
    binding: Binding,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    tensors: Option<u64>,
    workers: Workers,
}

fn ports(spec: &[crate::bundle::TensorSpec]) -> Result<Vec<Port>> {
    spec.iter()
        .map(|t| {
            let name = CString::new(t.name.as_str()).map_err(|_| {
                Error::new(ErrorKind::Manifest, format!("tensor name {:?} holds a NUL", t.name))
            })?;
            Ok(Port { name, label: t.name.clone(), dtype: t.dtype, storage: None, address: 0, bytes: 0 })
        })
        .collect()
}

/// Adds what to do about an operator that ONNX Runtime has, but not in the bundle's bf16. ONNX Runtime's own message names
/// the operator and the node.
fn without_kernel(error: Error, spec: &GraphSpec, provider: Provider) -> Error {
    let bf16 = spec.inputs.iter().chain(&spec.outputs).any(|t| t.dtype == Dtype::Bf16);
    if !bf16 || !error.to_string().contains("Could not find an implementation") {
        return error;
    }
    let remedy = match provider {
        Provider::Cpu => {
            "which the CPU provider cannot compute: run it with --provider cuda, on a GPU of compute capability 8.0 or \
             newer, or export it with --precision fp32 or fp16"
        }
        Provider::Cuda | Provider::TensorRt => {
            "which this ONNX Runtime cannot compute: take a newer one, or export the bundle with --precision fp16"
        }
    };
    Error::new(error.kind(), format!("{error}. The bundle is in bf16, {remedy}"))
}

impl Graph {
    /// Loads `path` as graph `name` and checks that its ports are the manifest's.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`] when the provider cannot be used or does not take every node, [`ErrorKind::Graph`]
    /// when ONNX Runtime refuses the file or a port differs from `spec`.
    pub fn load(
        environment: &Environment,
        name: &'static str,
        path: &Path,
        spec: &GraphSpec,
        options: &GraphOptions,
    ) -> Result<Self> {
        let fail = |e: ort::Error| graph_error(format_args!("cannot load {}", path.display()), e);
        let builder = || -> ort::Result<SessionBuilder> {
            Ok(Session::builder(environment.inner())?.with_no_environment_execution_providers()?)
        };
        let builder = provider::register(builder().map_err(fail)?, options)
            .map_err(|e| provider::unusable(options.provider, environment.library(), e.message()))?;
        let workers = Workers::default();
        let build = || -> ort::Result<Session> {
            builder
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(options.threads.max(1))?
                .with_thread_manager(workers.clone())?
                .with_parallel_execution(false)?
                .with_intra_op_spinning(options.spin)?
                // Workers may spin inside a run, never between runs: a control loop shares these cores.
                .with_config_entry("session.force_spinning_stop", "1")?
                .with_config_entry(placement::RECORD, "1")?
                .with_prepacking(options.prepack)?
                .commit_from_file(path)
        };
        let session = build().map_err(|e| without_kernel(fail(e), spec, options.provider))?;
        Placement::read(&session).map_err(fail)?.expect(name, options.provider)?;
        let check = |found: Vec<&str>, wanted: &[crate::bundle::TensorSpec], side: &str| -> Result<()> {
            for t in wanted {
                if !found.contains(&t.name.as_str()) {
                    let listed = found.join(", ");
                    let text = format!("{}: no {side} named {} (it has: {listed})", path.display(), t.name);
                    return Err(Error::new(ErrorKind::Graph, text));
                }
            }
            Ok(())
        };
        check(session.inputs().iter().map(|o| o.name()).collect(), &spec.inputs, "input")?;
        check(session.outputs().iter().map(|o| o.name()).collect(), &spec.outputs, "output")?;
        let binding = Binding::new(&session).map_err(fail)?;
        let (inputs, outputs) = (ports(&spec.inputs)?, ports(&spec.outputs)?);
        Ok(Graph { name, session, binding, inputs, outputs, tensors: None, workers })
    }

    /// The graph's name in the manifest.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// ONNX Runtime's own threads that share this graph's work, by Linux thread id.
    pub fn worker_threads(&self) -> Vec<i32> {
        self.workers.ids()
    }

    /// Index of an input, for [`bind_input`](Self::bind_input).
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|p| p.label == name)
    }

    /// Index of an output, for [`bind_output`](Self::bind_output).
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|p| p.label == name)
    }

    /// Binds input `port` to the elements of `tensor` that start at `offset`, seen as `shape`. The address stays
    /// bound until the port is bound anew; what the tensor holds at [`run`](Self::run) is what is read.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when type, offset or shape do not fit the tensor or the port.
    pub fn bind_input(
        &mut self,
        port: usize,
        tensors: &Tensors,
        tensor: TensorId,
        offset: usize,
        shape: &[i64],
    ) -> Result<()> {
        self.bind(Side::Input, port, tensors, tensor, offset, shape)
    }

    /// Binds output `port`, as [`bind_input`](Self::bind_input) does an input.
    ///
    /// # Errors
    /// As [`bind_input`](Self::bind_input).
    pub fn bind_output(
        &mut self,
        port: usize,
        tensors: &Tensors,
        tensor: TensorId,
        offset: usize,
        shape: &[i64],
    ) -> Result<()> {
        self.bind(Side::Output, port, tensors, tensor, offset, shape)
    }

    fn bind(
        &mut self,
        side: Side,
        port: usize,
        tensors: &Tensors,
        tensor: TensorId,
        offset: usize,
        shape: &[i64],
    ) -> Result<()> {
        if *self.tensors.get_or_insert(tensors.identity()) != tensors.identity() {
            return Err(Error::new(ErrorKind::Graph, format!("{}: bound to two tensor sets", self.name)));
        }
        let ports = match side {
            Side::Input => &mut self.inputs,
            Side::Output => &mut self.outputs,
        };
        let slot = &mut ports[port];
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let end = elements.and_then(|n| n.checked_add(offset));
        let fits = end.is_some_and(|end| end <= tensors.capacity(tensor));
        if !fits || tensors.dtype(tensor) != slot.dtype {
            let text = format!(
                "{}: {} ({:?} {shape:?}) does not fit tensor {} ({:?}, {} elements) at element {offset}",
                self.name,
                slot.label,
                slot.dtype,
                tensors.name(tensor),
                tensors.dtype(tensor),
                tensors.capacity(tensor),
            );
            return Err(Error::new(ErrorKind::Graph, text));
        }
        let size = slot.dtype.size();
        let bytes = elements.unwrap_or(0) * size;
        let storage = tensors.storage(tensor);
        // SAFETY: `offset` elements lie inside the storage, checked above.
        let data = unsafe { storage.ptr().add(offset * size) };
        // SAFETY: `data..data+bytes` lies inside the storage (checked above) and is aligned, as the storage is
        // page-aligned and the offset a whole number of elements. `slot.storage` keeps it alive while bound. Only
        // `run` makes ONNX Runtime touch it, and that holds `&mut Tensors`, so no slice of it is alive then.
        let bound = unsafe { self.binding.bind(side, &slot.name, data, bytes, slot.dtype, shape) };
        bound.map_err(|e| graph_error(format_args!("{}: cannot bind {}", self.name, slot.label), e))?;
        slot.address = data.as_ptr() as usize;
        slot.bytes = bytes;
        slot.storage = Some(Arc::clone(storage));
        Ok(())
    }

    /// Runs the graph on what is bound, and returns how long ONNX Runtime took. Nothing is allocated on our side.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when a port is not bound, the tensors are not the ones bound, or ONNX Runtime fails.
    pub fn run(&mut self, tensors: &mut Tensors) -> Result<Duration> {
        if self.tensors != Some(tensors.identity()) {
            return Err(Error::new(
                ErrorKind::Graph,
                format!("{}: run on tensors it is not bound to", self.name),
            ));
        }
        if let Some(p) = self.inputs.iter().chain(&self.outputs).find(|p| p.storage.is_none()) {
            return Err(Error::new(ErrorKind::Graph, format!("{}: {} is not bound", self.name, p.label)));
        }
        let start = std::time::Instant::now();
        let result = self.binding.run(&mut self.session);
        let took = start.elapsed();
        result.map_err(|e| graph_error(format_args!("{} failed", self.name), e))?;
        Ok(took)
    }

    /// Every port with its name, the address bound to it, and the size in bytes: inputs, then outputs.
    pub fn bound(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.inputs.iter().chain(&self.outputs).map(|p| (p.label.as_str(), p.address, p.bytes))
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("name", &self.name).finish_non_exhaustive()
    }
}
