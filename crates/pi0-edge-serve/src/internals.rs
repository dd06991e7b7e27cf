//! For fuzzing and tests: nothing here is promised to stay.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use pi0_edge::bundle::Manifest;
use pi0_edge::{Error, ErrorKind, Result};
use rustix::event::{EventfdFlags, eventfd};
use serde_json::Map;

use crate::inference::Job;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::request::Contract;
use crate::{Options, Shared, connection, wire};

/// Returns options for a server on any free port of the loopback: no key, messages of at most 1 MiB, 8 clients.
pub fn loopback() -> Options {
    Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        api_key: None,
        max_message: 1 << 20,
        max_clients: 8,
        seed: 0,
        num_steps: None,
        prompt: None,
        rename: Vec::new(),
        embodiment: None,
        metadata: Map::new(),
        metrics_every: None,
    }
}

/// Serves one client that sends `sent` and listens until the end, by a policy that finds fault with every observation.
/// Returns all that the client got.
///
/// # Errors
/// [`ErrorKind::Io`] where the system has no sockets left.
pub fn serve_bytes(manifest: &Manifest, options: &Options, sent: &[u8]) -> Result<Vec<u8>> {
    let cannot = |e: std::io::Error| Error::with_source(ErrorKind::Io, "cannot serve", e);
    let (ours, client) = UnixStream::pair().map_err(cannot)?;
    ours.set_nonblocking(true).map_err(cannot)?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| cannot(e.into()))?;
    let packed = wire::metadata(manifest, 1, &Map::new());
    let greeting = packed.map_err(|e| Error::with_source(ErrorKind::InvalidArgument, "no greeting", e))?;
    let shared = Arc::new(Shared {
        contract: Contract::new(manifest, Names::new(manifest, options)?, None, None),
        greeting,
        api_key: options.api_key.clone(),
        max_message: options.max_message,
        max_clients: options.max_clients,
        metrics: Metrics::default(),
        stopping: AtomicBool::new(false),
        stop,
    });
    let (jobs, queue) = channel::<Job>();
    // It does for a connection what one of TCP does.
    let stream = TcpStream::from(OwnedFd::from(ours));
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| connection::serve(stream, (Ipv4Addr::LOCALHOST, 1).into(), &shared, jobs));
        scope.spawn(|| {
            for job in queue {
                let refused = Err(Error::new(ErrorKind::Observation, "refused"));
                job.reply.give(job.request.with(0, |_, _| refused));
            }
        });
        scope.spawn(|| {
            // A server that has heard enough does not listen to the rest.
            let _ = (&client).write_all(sent);
            let _ = client.shutdown(Shutdown::Write);
        });
        (&client).read_to_end(&mut got)
    })
    .map_err(cannot)?;
    Ok(got)
}
