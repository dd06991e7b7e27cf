//! One subgraph of the policy: its session, and where its inputs and outputs live.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::binding::{Binding, Side};
use super::captures::{Captures, GraphId};
use super::device::Device;
use super::environment::Environment;
use super::graph_error;
use super::memory::Storage;
use super::placement::{self, Placement};
use super::provider;
use super::tensors::{TensorId, Tensors};
use super::workers::Workers;
use crate::bundle::{Dtype, GraphSpec, TensorSpec};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::provider::Provider;

/// Options of loading one graph.
#[derive(Debug, Clone)]
pub struct GraphOptions {
    /// Threads that share one operator's work, the calling thread included.
    pub threads: usize,
    /// Copy weights once into the layout the matrix kernels read fastest (costs load time and anonymous memory
    /// of the weights' size; the mapped file is let go). Without it the weights stay a file map that processes
    /// share and the kernel may evict.
    pub prepack: bool,
    /// True if worker threads spin while a run is going on. They always sleep between runs.
    pub spin: bool,
    /// True if CUDA graphs of it may be captured, see [`Graph::capture`].
    pub cuda_graph: bool,
    /// An existing directory to write ONNX Runtime's profile of it to, when it is dropped.
    pub profile: Option<PathBuf>,
}

/// An input or output of a [`Graph`], found by name once, so that binding it costs no look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(usize);

/// A port, and the memory it is bound to.
struct Slot {
    side: Side,
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
    slots: Vec<Slot>,
    tensors: Option<u64>,
    placement: Placement,
    /// Options of queued runs; nothing where they are not queued.
    captures: Option<Captures>,
    /// Tells the shapes that ports are bound for apart, as captured graphs do.
    shape: GraphId,
    workers: Workers,
    // Last, so that session and binding go first: they work on its stream and in its memory.
    device: Device,
}

fn slots(spec: &[TensorSpec], side: Side) -> impl Iterator<Item = Result<Slot>> {
    spec.iter().map(move |t| {
        let name = CString::new(t.name.as_str())
            .or_kind(ErrorKind::Manifest, || format!("tensor name {:?}", t.name))?;
        let (label, dtype) = (t.name.clone(), t.dtype);
        Ok(Slot { side, name, label, dtype, storage: None, address: 0, bytes: 0 })
    })
}

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// Adds what to do about an operator that ONNX Runtime has, but not in the bundle's bf16. ONNX Runtime's own message
/// names the operator and the node.
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
    /// when ONNX Runtime refuses the file or a port differs from `spec`, [`ErrorKind::Integrity`] when the weights were cut
    /// off meanwhile.
    pub fn load(
        environment: &Environment,
        device: &Device,
        name: &'static str,
        path: &Path,
        spec: &GraphSpec,
        options: &GraphOptions,
    ) -> Result<Self> {
        let fail = |e: ort::Error| graph_error(format_args!("cannot load {}", path.display()), e);
        let builder = || -> ort::Result<SessionBuilder> {
            let builder = Session::builder(environment.inner())?.with_no_environment_execution_providers()?;
            placement::demand(builder, environment.placement(), device.provider())
        };
        let builder = provider::register(builder().map_err(fail)?, device, options)
            .map_err(|e| provider::unusable(device.provider(), environment.library(), e.message()))?;
        let workers = Workers::default();
        let build = || -> ort::Result<Session> {
            let builder = match &options.profile {
                Some(directory) => builder.with_profiling(directory.join(name))?,
                None => builder,
            };
            builder
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(options.threads.max(1))?
                .with_thread_manager(workers.clone())?
                .with_parallel_execution(false)?
                .with_intra_op_spinning(options.spin)?
                // Workers may spin inside a run, never between runs: a control loop shares these cores.
                .with_config_entry("session.force_spinning_stop", "1")?
                // Without it, x86-64 processors that have no VNNI add 8-bit products in 16 bits, which overflow.
                .with_config_entry("session.x64quantprecision", "1")?
                .with_prepacking(options.prepack)?
                .commit_from_file(path)
        };
        let provider = device.provider();
        let loading = format_args!("cannot load {}", path.display());
        let session = workers.lost.watch(name, build)?;
        let session =
            session.map_err(|e| without_kernel(placement::not_made(loading, e, provider), spec, provider))?;
        let placement = placement::verify(&session, environment.placement(), name, provider)?;
        let check = |found: Vec<&str>, wanted: &[TensorSpec], side: &str| -> Result<()> {
            match wanted.iter().find(|t| !found.contains(&t.name.as_str())) {
                Some(t) => bail!(
                    Graph,
                    "{}: no {side} named {} (it has: {})",
                    path.display(),
                    t.name,
                    found.join(", ")
                ),
                None => Ok(()),
            }
        };
        check(session.inputs().iter().map(|o| o.name()).collect(), &spec.inputs, "input")?;
        check(session.outputs().iter().map(|o| o.name()).collect(), &spec.outputs, "output")?;
        let bound = || -> ort::Result<_> {
            let binding = Binding::new(&session, device.memory().info()?)?;
            let queued = device.memory().is_queued();
            let captures = queued.then(|| Captures::new(options.cuda_graph)).transpose()?;
            Ok((binding, captures))
        };
        let (binding, captures) = bound().map_err(fail)?;
        let slots = slots(&spec.inputs, Side::Input).chain(slots(&spec.outputs, Side::Output));
        Ok(Graph {
            name,
            session,
            binding,
            slots: slots.collect::<Result<_>>()?,
            tensors: None,
            placement,
            captures,
            shape: 1,
            workers,
            device: device.clone(),
        })
    }

    /// The graph's name in the manifest.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// ONNX Runtime's own threads that share this graph's work, by Linux thread id.
    pub fn worker_threads(&self) -> Vec<i32> {
        self.workers.ids()
    }

    /// Finds an input; none if the graph has none of that name.
    pub fn find_input(&self, name: &str) -> Option<Port> {
        self.slots.iter().position(|s| s.side == Side::Input && s.label == name).map(Port)
    }

    /// Finds an input that has to be there.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when the graph has none of that name.
    pub fn input(&self, name: &str) -> Result<Port> {
        self.find_input(name).ok_or_else(|| self.missing(name))
    }

    /// Finds an output that has to be there, as [`input`](Self::input) does an input.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn output(&self, name: &str) -> Result<Port> {
        let found = self.slots.iter().position(|s| s.side == Side::Output && s.label == name);
        found.map(Port).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, port: &str) -> Error {
        err!(Graph, "{} has no port named {port}; export the bundle again", self.name)
    }

    /// Binds a port to the elements of `tensor` that start at `offset`, seen as `shape`. The address stays bound until
    /// the port is bound anew; what the tensor holds at [`run`](Self::run) is what an input reads. Allocates nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when type, offset or shape do not fit the tensor or the port.
    pub fn bind(
        &mut self,
        port: Port,
        tensors: &Tensors,
        (tensor, offset): (TensorId, usize),
        shape: &[usize],
    ) -> Result<()> {
        let name = self.name;
        let same = *self.tensors.get_or_insert(tensors.identity()) == tensors.identity();
        ensure!(same, Graph, "{name}: bound to two tensor sets");
        let slot = &mut self.slots[port.0];
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let end = elements.and_then(|n| n.checked_add(offset));
        let fits = end.is_some_and(|end| end <= tensors.capacity(tensor)) && shape.len() <= MAX_RANK;
        ensure!(
            fits && tensors.dtype(tensor) == slot.dtype,
            Graph,
            "{name}: {} ({:?} {shape:?}) does not fit tensor {} ({:?}, {} elements) at element {offset}",
            slot.label,
            slot.dtype,
            tensors.name(tensor),
            tensors.dtype(tensor),
            tensors.capacity(tensor)
        );
        let mut dims = [0i64; MAX_RANK];
        dims.iter_mut().zip(shape).for_each(|(dim, size)| *dim = *size as i64);
        let dims = &dims[..shape.len()];
        let size = slot.dtype.size();
        let bytes = elements.unwrap_or(0) * size;
        let storage = tensors.storage(tensor);
        // SAFETY: `offset` elements lie inside the storage, checked above.
        let data = unsafe { storage.block().device.add(offset * size) };
        // SAFETY: `data..data+bytes` lies inside the storage (checked above) and is aligned, as the storage is (to 256
        // bytes at the least) and the offset a whole number of elements. `slot.storage` keeps it alive while bound.
        // Only `run` makes ONNX Runtime touch it, and that holds `&mut Tensors`, so no slice of it is alive then.
        let bound = unsafe { self.binding.bind(slot.side, &slot.name, data, bytes, slot.dtype, dims) };
        bound.map_err(|e| graph_error(format_args!("{name}: cannot bind {}", slot.label), e))?;
        slot.address = data.as_ptr() as usize;
        slot.bytes = bytes;
        slot.storage = Some(Arc::clone(storage));
        Ok(())
    }

    /// Says which shape the ports are bound for. Graphs captured for another shape are not replayed.
    pub fn set_shape(&mut self, shape: GraphId) {
        self.shape = shape;
    }

    /// Runs the graph on what is bound, or queues that where the device has a queue; the time it takes is kept by
    /// `tensors`. Nothing is allocated on our side.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when a port is not bound, the tensors are not the ones bound, or ONNX Runtime fails;
    /// [`ErrorKind::Integrity`], now and ever after, when mapped weights were cut off.
    pub fn run(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.check_bound(tensors)?;
        let Graph { name, session, binding, captures, shape, workers, device, .. } = self;
        let options = captures.as_ref().map(|c| c.options(*shape));
        // On a GPU the weights were copied when the graph was loaded.
        let _working = (device.provider() == Provider::Cpu).then(|| workers.lost.working()).transpose()?;
        tensors.timed(|| {
            let ran = binding.run(session, options);
            workers.lost.check(name)?;
            ran.map_err(|e| graph_error(format_args!("{name} failed"), e))
        })
    }

    /// Captures a CUDA graph of a run on what is bound, for runs of this shape on this thread to replay. Nothing
    /// happens where that is done already, or not to be done.
    ///
    /// The graph runs several times over: what it writes is spoiled if it also reads it. A graph that cannot be
    /// captured is run as before, and the log says why.
    ///
    /// # Errors
    /// [`ErrorKind::Graph`] when a port is not bound or the tensors are not the ones bound.
    pub fn capture(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.check_bound(tensors)?;
        let Some(captures) = &mut self.captures else { return Ok(()) };
        let fail = |e| graph_error(format_args!("{}: run options", self.name), e);
        let Some(options) = captures.missing(self.shape).map_err(fail)? else { return Ok(()) };
        // ONNX Runtime begins a capture by waiting; what is queued before it should fail as itself.
        tensors.synchronize()?;
        match self.binding.run(&mut self.session, Some(&options)) {
            Ok(()) => {
                captures.insert(self.shape, options);
                log::debug!("{}: CUDA graph captured for shape {}", self.name, self.shape);
            }
            Err(e) => {
                captures.give_up();
                self.device.memory().abandon_capture();
                log::warn!(
                    "{}: no CUDA graph, its kernels are launched one by one: {}",
                    self.name,
                    e.message()
                );
            }
        }
        tensors.synchronize()
    }

    /// The providers that run its nodes, as ONNX Runtime names them, and how many each runs; nothing before ONNX Runtime
    /// 1.24, which does not tell.
    pub fn placement(&self) -> impl Iterator<Item = (&str, usize)> {
        self.placement.nodes.iter().map(|(provider, nodes)| (provider.as_str(), nodes.len()))
    }

    /// Returns true if runs of this shape on this thread replay a CUDA graph.
    pub fn replays(&self) -> bool {
        self.captures.as_ref().is_some_and(|c| c.has(self.shape))
    }

    fn check_bound(&self, tensors: &Tensors) -> Result<()> {
        let name = self.name;
        let same = self.tensors == Some(tensors.identity());
        ensure!(same, Graph, "{name}: run on tensors it is not bound to");
        match self.slots.iter().find(|s| s.storage.is_none()) {
            Some(slot) => bail!(Graph, "{name}: {} is not bound", slot.label),
            None => Ok(()),
        }
    }

    /// Lists every port with its name, the address bound to it, and the size in bytes: inputs, then outputs.
    pub fn bound(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.slots.iter().map(|s| (s.label.as_str(), s.address, s.bytes))
    }
}
