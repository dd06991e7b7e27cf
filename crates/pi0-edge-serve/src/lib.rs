//! Serves a policy over openpi's websocket, so that a client of openpi's changes the host's address and nothing else.
//!
//! * **One thread computes**, first come, first served; a connection has one request with it at a time.
//! * **One thread a connection** reads and writes, so that pings are answered while a chunk is computed.
//! * **Every message has a defined answer.** An observation that does not fit is answered in words and the connection
//!   goes on; what is no message at all is answered and the connection closed.
//! * **Memory is bounded** by the clients and the size of a message, both of which are options.
//! * **No code comes over the wire**: messages are read as msgpack with numpy's arrays of plain numbers.

#![deny(unsafe_code)]

mod array;
mod connection;
mod handshake;
mod inference;
#[doc(hidden)]
pub mod internals;
mod metrics;
mod names;
mod options;
mod request;
mod value;
mod waiting;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pi0_edge::{Error, ErrorKind, Policy, Result};
use rustix::event::PollFlags;

pub use names::Embodiment;
pub use options::{HANDSHAKE, MAX_HEAD, MAX_STALL, MAX_UNANSWERED, Options, PING_EVERY};

use inference::Job;
use metrics::Metrics;
use names::Names;
use request::Contract;
use waiting::wait;

/// Connections beyond the clients that may be there: enough to tell them so, and to answer who asks for health.
const MAX_OPENING: usize = 8;

/// Shared by all threads of a server.
#[derive(Debug)]
struct Shared {
    contract: Contract,
    greeting: Vec<u8>,
    api_key: Option<String>,
    max_message: usize,
    max_clients: usize,
    metrics: Metrics,
    stopping: AtomicBool,
    /// Readable when the server is to stop. Nobody reads it.
    stop: OwnedFd,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// One more of something, for as long as this lives.
struct Counted {
    shared: Arc<Shared>,
    count: fn(&Metrics) -> &AtomicUsize,
}

impl Counted {
    /// Counts one more, and returns how many there are with it.
    fn new(shared: &Arc<Shared>, count: fn(&Metrics) -> &AtomicUsize) -> (Self, usize) {
        let others = count(&shared.metrics).fetch_add(1, Ordering::Relaxed);
        (Counted { shared: Arc::clone(shared), count }, others + 1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.shared.metrics).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A policy that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    policy: Policy,
    shared: Arc<Shared>,
    first_seed: u64,
    metrics_every: Option<Duration>,
}

impl Server {
    /// Checks the options against the bundle and listens. `stop` becomes readable when the server is to stop.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an address that others can reach without an API key, a number of steps that
    /// cannot be, or a name of no camera; [`ErrorKind::Io`] where the address cannot be listened on.
    pub fn bind(policy: Policy, options: Options, stop: OwnedFd) -> Result<Self> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
        if !options.listen.ip().is_loopback() && options.api_key.is_none() {
            return refuse(format!("{} can be reached from elsewhere: an API key is needed", options.listen));
        }
        if options.num_steps.is_some_and(|n| !(1..=pi0_edge::MAX_NUM_STEPS).contains(&n)) {
            return refuse(format!("the number of steps goes from 1 to {}", pi0_edge::MAX_NUM_STEPS));
        }
        let manifest = policy.manifest();
        let names = Names::new(manifest, &options)?;
        let num_steps = options.num_steps.unwrap_or(manifest.flow.num_steps);
        let greeting = wire::metadata(manifest, num_steps, &options.metadata).map_err(|e| {
            Error::with_source(ErrorKind::InvalidArgument, "cannot make the first message", e)
        })?;
        let contract = Contract::new(manifest, names, options.prompt, options.num_steps);
        let listener = listen(options.listen)?;
        let nonblocking = listener.set_nonblocking(true);
        nonblocking.map_err(|e| Error::with_source(ErrorKind::Io, "cannot set up the socket", e))?;
        let shared = Shared {
            contract,
            greeting,
            api_key: options.api_key,
            max_message: options.max_message,
            max_clients: options.max_clients,
            metrics: Metrics::default(),
            stopping: AtomicBool::new(false),
            stop,
        };
        Ok(Server {
            listener,
            policy,
            shared: Arc::new(shared),
            first_seed: options.seed,
            metrics_every: options.metrics_every,
        })
    }

    /// Returns the address that is listened on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .map_err(|e| Error::with_source(ErrorKind::Io, "cannot ask for the address", e))
    }

    /// Serves until it is told to stop; then closes every connection and waits for the chunk that is being computed.
    ///
    /// # Errors
    /// [`ErrorKind::Runtime`] if the thread that computes has ended; [`ErrorKind::Io`] if the system does not let it go on.
    pub fn run(self) -> Result<()> {
        let Server { listener, policy, shared, first_seed, metrics_every } = self;
        let cannot = |what: &'static str| move |e: io::Error| Error::with_source(ErrorKind::Io, what, e);
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let inference = std::thread::Builder::new().name("inference".into());
        let metrics = Arc::clone(&shared);
        let inference = inference
            .spawn(move || inference::run(policy, first_seed, &queue, &metrics.metrics))
            .map_err(cannot("cannot start the thread that computes"))?;
        let mut next_metrics = metrics_every.map(|every| Instant::now() + every);
        let mut said = shared.metrics.to_string();
        // A computing thread that has ended is found out within this.
        let look = Duration::from_secs(1);
        let result = loop {
            let fds: [(BorrowedFd<'_>, PollFlags); 2] =
                [(listener.as_fd(), PollFlags::IN), (shared.stop.as_fd(), PollFlags::IN)];
            let [_, stop] =
                wait(fds, Some(Instant::now() + look)).map_err(cannot("cannot wait for clients"))?;
            if !stop.is_empty() {
                break Ok(());
            }
            if inference.is_finished() {
                break Err(Error::new(ErrorKind::Runtime, "the thread that computes has ended"));
            }
            if let (Some(at), Some(every)) = (next_metrics, metrics_every)
                && Instant::now() >= at
            {
                next_metrics = Some(Instant::now() + every);
                let now = shared.metrics.to_string();
                if now != said {
                    eprintln!("pi0-edge: {now}");
                    said = now;
                }
            }
            accept(&listener, &shared, &jobs);
        };
        shared.stopping.store(true, Ordering::Relaxed);
        drop((listener, jobs));
        if result.is_ok() {
            // Every connection sees the stop too; then nobody can ask any more, and the thread comes to its end.
            inference
                .join()
                .map_err(|_| Error::new(ErrorKind::Runtime, "the thread that computes has panicked"))?;
        }
        let until = Instant::now() + 2 * options::LINGER;
        while shared.metrics.connections.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("pi0-edge: {}", shared.metrics);
        result
    }
}

/// Listens, or says why that is not possible; for finding out before a bundle is loaded, too.
///
/// # Errors
/// [`ErrorKind::Io`], naming the address.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .map_err(|e| Error::with_source(ErrorKind::Io, format!("cannot listen on {address}"), e))
}

/// Takes the connections that wait, and gives each a thread.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, jobs: &Sender<Job>) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) => {
                // Out of files, mostly: what waits goes on waiting.
                log::warn!("cannot take a connection: {e}");
                return std::thread::sleep(Duration::from_millis(50));
            }
        };
        if let Err(e) = spawn(stream, peer, shared, jobs) {
            log::warn!("{peer}: not served: {e}");
        }
    }
}

fn spawn(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, jobs: &Sender<Job>) -> io::Result<()> {
    let (counted, connections) = Counted::new(shared, |metrics| &metrics.connections);
    if connections > shared.max_clients + MAX_OPENING {
        return Err(io::Error::other("there are too many connections"));
    }
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let jobs = jobs.clone();
    let client = std::thread::Builder::new().name("client".into());
    client.spawn(move || connection::serve(stream, peer, &counted.shared, jobs)).map(|_| ())
}
