//! `pi0-edge serve`: a policy for openpi's clients.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::error::ErrorKind as Usage;
use pi0_edge::internals::notify_systemd;
use pi0_edge::{Error, ErrorKind, Policy, Result};
use pi0_edge_serve::{Embodiment, Options, Server, listen};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::observation::StoredObservation;
use crate::options::{Choices, LoadOptions, choice};
use crate::output::{cannot, read_json, refuse};

/// Least characters of an API key.
const MIN_KEY: usize = 16;
/// Largest file of metadata read.
const MAX_METADATA: u64 = 1 << 20;

const EMBODIMENTS: &Choices<Embodiment> = &[
    ("libero", "image, wrist_image", Embodiment::Libero),
    (
        "droid",
        "exterior_image_1_left, wrist_image_left; joint_position and gripper_position",
        Embodiment::Droid,
    ),
    ("aloha", "cam_high, cam_left_wrist, cam_right_wrist; cam_low is dropped", Embodiment::Aloha),
];

const LIMITS: &str = "\
Limits:
  of size   a request that opens a websocket: 16 KiB; a message: --max-message, and what it says of itself counts before it
            is read; 65536 values and 8 levels in a message; 8 requests ahead of answers, then the client is not read
  of time   10 s to open a websocket; a ping every 20 s, and 2 that are not answered are the end; 60 s for a client to take
            what it is sent; 2 s to say goodbye
  memory    --max-clients times three times --max-message at the very most

GET /healthz answers 200 without a key. SIGTERM and Ctrl-C close every connection (1001), let the chunk that is being
computed come to its end, and exit with 0; a second one ends at once. docs/serve.md has the messages.";

/// Arguments of `serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = LIMITS)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
    /// Address to listen on, port 0 for any; one that others can reach wants --api-key-file
    #[arg(long, value_name = "HOST:PORT", value_parser = address, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// File with the key that clients must give, at least 16 characters: openssl rand -hex 32 >FILE
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Names of a kind of robot, for bundles from openpi's checkpoints
    #[arg(long, value_parser = choice(EMBODIMENTS))]
    embodiment: Option<Embodiment>,
    /// A client's name of an image, and the bundle's name of that camera; may be repeated
    #[arg(long, value_name = "KEY=CAMERA", value_parser = rename)]
    rename: Vec<(String, String)>,
    /// Task where a request brings none (default: the bundle's)
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Seed of the first request that brings neither seed nor noise; the next such one has the next
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Euler steps where a request does not say (default: the bundle's)
    #[arg(long, value_name = "N")]
    num_steps: Option<usize>,
    /// Largest message, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_message: u32,
    /// Most clients at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_clients: u32,
    /// JSON object whose entries are added to the message that a client gets first
    #[arg(long, value_name = "FILE.json")]
    metadata: Option<PathBuf>,
    /// Time between two lines of figures on stderr, where there is something new; 0: none but the last
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    metrics: u64,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let first = text.to_socket_addrs().map_err(|e| format!("{e}; HOST:PORT is wanted"))?.next();
    first.ok_or_else(|| "no such host".into())
}

fn rename(text: &str) -> Result<(String, String), String> {
    let (key, camera) = text.split_once('=').ok_or("KEY=CAMERA is wanted")?;
    Ok((key.to_owned(), camera.to_owned()))
}

fn read_key(path: &Path) -> Result<String> {
    let key = std::fs::read_to_string(path).map_err(cannot("read", path))?.trim().to_owned();
    if key.len() < MIN_KEY || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let path = path.display();
        return refuse(format!(
            "{path}: a key has at least {MIN_KEY} visible characters of ASCII in one line"
        ));
    }
    Ok(key)
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    if !args.listen.ip().is_loopback() && args.api_key_file.is_none() {
        let text = format!("{} can be reached from elsewhere: --api-key-file is needed\n", args.listen);
        clap::Error::raw(Usage::MissingRequiredArgument, text).exit();
    }
    // Cheap, and likely to be wrong: before the bundle is verified and loaded.
    let api_key = args.api_key_file.as_deref().map(read_key).transpose()?;
    let metadata = args.metadata.as_deref();
    let metadata =
        metadata.map(|path| read_json(path, MAX_METADATA, ErrorKind::InvalidArgument)).transpose()?;
    drop(listen(args.listen)?);

    eprintln!("loading {}", args.load.bundle.display());
    let begun = Instant::now();
    let mut policy = args.load.load()?;
    eprintln!("loaded in {:.1} s; warming up", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    warm_up(&mut policy, args)?;
    eprintln!("warmed up in {:.1} s", begun.elapsed().as_secs_f64());

    let options = Options {
        listen: args.listen,
        api_key,
        max_message: (args.max_message as usize) << 20,
        max_clients: args.max_clients as usize,
        seed: args.seed,
        num_steps: args.num_steps,
        prompt: args.prompt.clone(),
        rename: args.rename.clone(),
        embodiment: args.embodiment,
        metadata: metadata.unwrap_or_default(),
        metrics_every: (args.metrics > 0).then(|| Duration::from_secs(args.metrics)),
    };
    let server = Server::bind(policy, options, stop_signal()?.into())?;
    eprintln!("listening on ws://{}", server.address()?);
    notify_systemd("READY=1\nSTATUS=serving\n")?;
    server.run()
}

/// Computes one chunk, so that the first client does not wait for what is only done once.
fn warm_up(policy: &mut Policy, args: &Args) -> Result<()> {
    let observation = StoredObservation::read_or_golden(None, policy)?;
    let options = pi0_edge::InferOptions { num_steps: args.num_steps, ..pi0_edge::InferOptions::default() };
    observation.with(|o| policy.infer(o, &options).map(|_| ()))?;
    policy.capture_graphs()
}

/// Returns what becomes readable at SIGTERM or Ctrl-C. The second of these ends the program.
fn stop_signal() -> Result<UnixStream> {
    let stopping = Arc::new(AtomicBool::new(false));
    let register = || {
        let (stop, stopped) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))?;
            signal_hook::flag::register(signal, Arc::clone(&stopping))?;
            signal_hook::low_level::pipe::register(signal, stopped.try_clone()?)?;
        }
        std::io::Result::Ok(stop)
    };
    register().map_err(|e| Error::with_source(ErrorKind::Io, "cannot listen for signals", e))
}
