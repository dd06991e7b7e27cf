//! Building an engine by NVIDIA's `trtexec`, which reads a graph's weights from their file, whatever their size. ONNX
//! Runtime's TensorRT provider hands a graph over as one message, which ends at 2 GB.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bundle::GraphSpec;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::session::{EngineBuild, shapes, tensorrt_version_text};

/// Lines of its output that an error shows.
const SHOWN: usize = 12;
/// The time between two looks at whether it has ended or is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Builds the engine of `model` and writes it to `engine`. The engine is typed by the graph. Takes minutes for a
/// full-size graph; ends early once `stop` is true.
///
/// # Errors
/// [`ErrorKind::Engine`] if `program` cannot be run, is of another TensorRT than `version`, or was stopped;
/// [`ErrorKind::Graph`], with the last it said, if it fails.
pub(crate) fn build(
    program: &Path,
    version: &str,
    (model, engine): (&Path, &Path),
    spec: &GraphSpec,
    build: &EngineBuild<'_>,
    stop: &AtomicBool,
) -> Result<()> {
    let running = || format!("cannot run {}", program.display());
    let (output, input) = std::io::pipe().or_kind(ErrorKind::Io, running)?;
    let mut command = Command::new(program);
    command.args(arguments(model, engine, spec, build)?).stdin(Stdio::null());
    command.stdout(input.try_clone().or_kind(ErrorKind::Io, running)?).stderr(input);
    let mut child = command.spawn().or_kind(ErrorKind::Engine, running)?;
    // The ends that this process has; the output ends with the child.
    drop(command);
    let reader = std::thread::spawn(move || read(output));
    let status = loop {
        // Relaxed: the flag is all there is to see.
        if stop.load(Ordering::Relaxed) {
            _ = child.kill();
            _ = child.wait();
            bail!(Engine, "{}: stopped", build.graph);
        }
        match child.try_wait().or_kind(ErrorKind::Io, running)? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    let said = reader.join().unwrap_or_default();
    ensure!(
        said.version.as_deref().is_none_or(|found| found == version),
        Engine,
        "{} is of TensorRT {}, ONNX Runtime loads {version}, which cannot run its engines; name the one of {version} by \
         --trtexec",
        program.display(),
        said.version.as_deref().unwrap_or_default()
    );
    ensure!(
        status.success(),
        Graph,
        "{}: {} cannot build it ({status}): {}",
        build.graph,
        program.display(),
        said.last.into_iter().collect::<Vec<_>>().join(" | ")
    );
    Ok(())
}

/// The arguments of `trtexec`.
fn arguments(model: &Path, engine: &Path, spec: &GraphSpec, build: &EngineBuild<'_>) -> Result<Vec<String>> {
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| err!(InvalidArgument, "{} is not UTF-8, which trtexec needs", path.display()))
    };
    let options = build.options;
    let mut all = vec![
        format!("--onnx={}", path(model)?),
        format!("--saveEngine={}", path(engine)?),
        // Building is all there is to do.
        "--skipInference".to_owned(),
        "--stronglyTyped".to_owned(),
        format!("--device={}", build.gpu),
        format!("--timingCacheFile={}", path(&build.timing.join("trtexec.cache"))?),
        format!("--builderOptimizationLevel={}", options.optimization_level),
    ];
    for (which, name) in ["--minShapes", "--optShapes", "--maxShapes"].into_iter().enumerate() {
        let shapes = shapes(&spec.inputs, build.sizes, which)?;
        if !shapes.is_empty() {
            all.push(format!("{name}={shapes}"));
        }
    }
    if let Some(bytes) = options.workspace {
        all.push(format!("--memPoolSize=workspace:{bytes}B"));
    }
    if let Some(streams) = options.auxiliary_streams {
        all.push(format!("--maxAuxStreams={streams}"));
    }
    Ok(all)
}

/// The words that were said: the version of TensorRT, if it was named, and the last lines.
#[derive(Debug, Default)]
struct Said {
    version: Option<String>,
    last: VecDeque<String>,
}

fn read(output: impl std::io::Read) -> Said {
    let mut said = Said::default();
    for line in BufReader::new(output).split(b'\n').map_while(std::result::Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        log::debug!(target: "trtexec", "{line}");
        said.version = said.version.or_else(|| version_in(&line));
        if said.last.len() == SHOWN {
            said.last.pop_front();
        }
        said.last.push_back(line);
    }
    said
}

/// The version in a line such as `&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # …`.
fn version_in(line: &str) -> Option<String> {
    let number = line.split_once("[TensorRT v")?.1.split_once(']')?.0;
    number.parse().ok().map(tensorrt_version_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_line() {
        let line =
            "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec --onnx=x";
        assert_eq!(version_in(line).as_deref(), Some("10.3.0"));
        assert_eq!(version_in("[TensorRT v101602] [b10]").as_deref(), Some("10.16.2"));
        assert_eq!(version_in("[I] TensorRT version: 10.3.0"), None);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let text: String = (0..40).map(|i| format!("line {i}\n")).collect();
        let said = read(text.as_bytes());
        assert_eq!(said.last.front().map(String::as_str), Some("line 28"));
        assert_eq!((said.last.len(), said.version), (SHOWN, None));
    }
}
