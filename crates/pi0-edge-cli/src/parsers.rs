//! Every parser that sees a file, as a function of the file's bytes: the tests give them the files in fuzz/seeds, whole
//! and damaged. Each ends, and what it says of a file fits a terminal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use pi0_edge::bundle::{FileEntry, GraphName, Manifest, Target};
use pi0_edge::internals::{PromptTokenizer, Rules, TokenTable, check_context_model, prescan};
use pi0_edge::runtime::ThreadConfig;
use pi0_edge::tensorrt::Record;
use pi0_edge::{Error, ErrorKind, Result};
use pi0_edge_golden::{Golden, parse_npy};
use pi0_edge_mcap::{Clock, Flight, Names, Recording};

use crate::observation::ObservationFile;
use crate::output::parse_json;
use crate::replay::episode::EpisodeFile;
use crate::{frame, replay::recording};

pub type Parser = fn(&[u8]);

/// The parsers by the names of their folders.
pub const ALL: &[(&str, Parser)] = &[
    ("context", context),
    ("engines", |bytes| shown(Record::parse(bytes))),
    ("episode", |bytes| {
        shown(parse_json::<EpisodeFile>(bytes, path(), ErrorKind::Observation).and_then(|e| e.check(path())));
    }),
    ("flight", |bytes| shown(parse_json(bytes, path(), ErrorKind::InvalidArgument).and_then(flight))),
    ("golden", |bytes| shown(Golden::parse(bytes, "golden.json"))),
    ("graph", graph),
    ("image", |bytes| _ = frame::decode(bytes)),
    ("library", library),
    ("manifest", |bytes| shown(Manifest::parse(bytes))),
    ("npy", |bytes| shown(parse_npy(bytes, "array.npy", ErrorKind::Integrity))),
    ("observation", |bytes| shown(parse_json::<ObservationFile>(bytes, path(), ErrorKind::Observation))),
    ("recording", recorded),
    ("serve", served),
    ("token_table", token_table),
    ("tokenizer", tokenizer),
];

fn path() -> &'static Path {
    Path::new("file")
}

fn shown<T>(outcome: Result<T>) {
    if let Err(error) = outcome {
        let text = error.to_string();
        assert!(!text.contains(char::is_control) && text.len() < 20_000, "{text:?}");
    }
}

fn manifest(text: &str) -> Manifest {
    Manifest::parse(text.as_bytes()).expect("a manifest of the project's own")
}

static PI0: LazyLock<Manifest> =
    LazyLock::new(|| manifest(include_str!("../../../models/pi0-tiny/manifest.json")));
static PI05: LazyLock<Manifest> =
    LazyLock::new(|| manifest(include_str!("../../../models/pi05-tiny/manifest.json")));

/// Holds a graph file against every graph that it could be, for every target.
fn graph(bytes: &[u8]) {
    for manifest in [&*PI0, &*PI05] {
        for graph in GraphName::ALL {
            for (target, opset) in [(Target::Cpu, 20), (Target::Cuda, 23), (Target::Tensorrt, 23)] {
                let rules = Rules { spec: manifest.graph(graph), opset, target, data_size: Some(1 << 20) };
                shown(prescan(bytes, &rules));
            }
        }
    }
}

/// The file has the tokenizer, and perhaps a zero byte and a prompt.
fn tokenizer(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let (json, prompt) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(b"pick up the cube"));
    for manifest in [&*PI0, &*PI05] {
        match PromptTokenizer::new(json, manifest) {
            Ok(mut tokenizer) => {
                let state = vec![0.5; manifest.state.padded_dim];
                shown(tokenizer.encode(Some(&String::from_utf8_lossy(prompt)), &state).map(|_| ()));
            }
            error => shown(error),
        }
    }
}

/// The first two bytes say how many rows of which width the rest is.
fn token_table(bytes: &[u8]) {
    let Some((&[rows, width], table)) = bytes.split_first_chunk() else { return };
    let mut spec = PI0.token_embedding.clone();
    (spec.rows, spec.width) = (rows.into(), width.into());
    match TokenTable::new(table, &spec) {
        Ok(table) => {
            let mut row = vec![0; table.row_bytes()];
            (0..256).for_each(|id| shown(table.gather(&[id], &mut row)));
        }
        error => shown(error),
    }
}

/// Writes a flight record down as `mcap` does.
fn flight(flight: Flight) -> Result<()> {
    let names = Names::numbered(flight.action_dim(), Duration::from_millis(20));
    let file = in_memory(b"");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut recording = Recording::create(path.as_ref(), names, Clock::Boot)?;
    recording.flight(flight)?;
    recording.finish().map(|_| ())
}

/// A context model beside one engine.
fn context(bytes: &[u8]) {
    let files = BTreeMap::from([("a.engine".to_owned(), FileEntry { size: 1, sha256: String::new() })]);
    shown(check_context_model(bytes, &files).map_err(|what| Error::new(ErrorKind::Engine, what)));
}

fn in_memory(bytes: &[u8]) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("file", flags).expect("memory for a file"));
    file.write_all(bytes).expect("memory for a file");
    file
}

fn library(bytes: &[u8]) {
    let library = pi0_edge_doctor::internals::read_library(in_memory(bytes));
    shown(library.map_err(|what| Error::new(ErrorKind::Io, what)));
}

/// All that a client sends, its handshake first.
fn served(bytes: &[u8]) {
    let options = pi0_edge_serve::internals::loopback();
    let got = pi0_edge_serve::internals::serve_bytes(&PI0, &options, bytes).expect("sockets");
    // A greeting, a few words for each request, and as much for each ping as it had.
    assert!(got.len() < 20_000 + 100 * bytes.len(), "{} bytes for {}", got.len(), bytes.len());
}

fn recorded(bytes: &[u8]) {
    match recording::parse(bytes, path()) {
        Ok(runs) => {
            runs.iter().for_each(|run| shown(run.settings.runtime(run.trace.dim, ThreadConfig::off())))
        }
        error => shown(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parser's files, and each of them cut off, with bytes changed and with parts moved.
    #[test]
    fn whatever_a_file_holds_its_parser_ends() {
        for (name, parse) in ALL {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
            let files: Vec<_> = std::fs::read_dir(seeds).unwrap().map(|file| file.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                let whole = std::fs::read(&file).unwrap();
                println!("{}", file.display());
                parse(&whole);
                let mut random = Random(whole.len() as u64);
                for _ in 0..60 {
                    parse(&damaged(&whole, &mut random));
                }
            }
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end.max(1)
        }
    }

    fn damaged(whole: &[u8], random: &mut Random) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        for _ in 0..=random.below(4) {
            let (at, to) = (random.below(bytes.len()), random.below(bytes.len()));
            match random.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (to % 8)),
                2 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = b"\0\xff\"[{9-"[to % 7]),
                3 => drop(bytes.drain(at.min(to)..at.max(to))),
                _ => {
                    let part = bytes[at.min(to)..at.max(to)].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        bytes
    }
}
