//! A recording on disk: the inputs and the outputs of one or several runs, one JSON value a line.
//!
//! ```text
//! {"run": {"recording": 1, "bundle": "<sha256 of manifest.json>", "episode": "<sha256>", "settings": {…}, …}}
//! {"observation": [now, captured, index]}
//! {"chunk": [[number, captured, begun, published, progress_at, expected, guided_rows, delay], rejected, "<values>"]}
//! {"read": [now, [status, flags, chunk, age, tick, row, remaining, missed, seam_jump], "<values>"]}
//! {"end": [observations, chunks, reads]}
//! ```
//!
//! Times are nanoseconds of CLOCK_MONOTONIC. Values are f32 bits, eight hexadecimal digits each, so that nothing is
//! rounded on the way. The frames are not in it: it goes with the episode, whose digest it names.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use pi0_edge::runtime::{ChunkInfo, Flags, Reading, Status, Timestamp};
use pi0_edge::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::trace::{Computed, Seen, Tick, Trace};
use crate::output::{NewFile, cannot, refuse};

/// Version of the format.
pub const VERSION: u32 = 1;

/// Longest line: a chunk, at eight digits a value, has some hundred kilobytes.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Most values of an action.
const MAX_WIDTH: usize = 1 << 12;
/// Most values of all actions of a run: an hour of 64 joints at 1 kHz.
const MAX_VALUES: usize = 1 << 28;

/// The things that a run was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Version of the format.
    pub recording: u32,
    /// SHA-256 of the bundle's manifest, which holds those of all its files.
    pub bundle: String,
    /// The episode's digest.
    pub episode: String,
    /// The provider that ran the graphs.
    pub provider: String,
    /// Threads of one operator.
    pub threads: usize,
    /// ONNX Runtime's description of its build.
    pub onnxruntime: String,
    /// The program's version.
    pub pi0_edge: String,
}

impl Made {
    /// Refuses what is certain to give other actions; says what may, for when it did.
    pub fn compare(&self, here: &Made) -> Result<String> {
        if self.bundle != here.bundle {
            return refuse("the recording was made with another bundle");
        }
        if self.episode != here.episode {
            return refuse("the recording was made with another episode");
        }
        let pairs = [
            ("provider", &self.provider, &here.provider),
            ("number of threads", &self.threads.to_string(), &here.threads.to_string()),
            ("ONNX Runtime", &self.onnxruntime, &here.onnxruntime),
            ("pi0-edge", &self.pi0_edge, &here.pi0_edge),
        ];
        let differ = pairs.into_iter().filter(|(_, then, now)| then != now);
        Ok(differ.map(|(what, then, now)| format!("; {what}: {then} then, {now} now")).collect())
    }
}

/// One run of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The things it was made with.
    pub made: Made,
    /// Its settings.
    pub settings: Settings,
    /// The inputs and the outputs.
    pub trace: Trace,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Run(Box<(Made, Settings, usize)>),
    Observation(u64, u64, usize),
    Chunk([u64; 8], bool, String),
    Read(u64, [u64; 9], Option<String>),
    End(usize, usize, usize),
}

fn to_hex(values: &[f32]) -> String {
    values.iter().map(|v| format!("{:08x}", v.to_bits())).collect()
}

fn from_hex(text: &str) -> Option<Vec<f32>> {
    if !text.is_ascii() || !text.len().is_multiple_of(8) {
        return None;
    }
    let value = |i| u32::from_str_radix(&text[i * 8..][..8], 16).ok().map(f32::from_bits);
    (0..text.len() / 8).map(value).collect()
}

/// Writes a recording, whole or not at all.
pub fn write(file: NewFile, runs: &[Recorded]) -> Result<()> {
    file.write(|file| {
        for line in runs.iter().flat_map(lines) {
            serde_json::to_writer(&mut *file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

fn lines(run: &Recorded) -> impl Iterator<Item = Line> + '_ {
    let Recorded { made, settings, trace } = run;
    let head = Line::Run(Box::new((made.clone(), settings.clone(), trace.dim)));
    let seen = |o: &Seen| Line::Observation(o.now.as_nanos(), o.captured.as_nanos(), o.index);
    let chunk = |c: &Computed| {
        let i = &c.info;
        let [captured, begun, published, progress_at] =
            [i.captured, i.begun, i.published, i.progress_at].map(Timestamp::as_nanos);
        let [guided, delay] = [i.guided_rows, i.inference_delay].map(u64::from);
        let head = [i.number, captured, begun, published, progress_at, i.expected_ns, guided, delay];
        Line::Chunk(head, c.rejected, to_hex(&c.values))
    };
    let read = |(i, tick): (usize, &Tick)| {
        let r = &tick.reading;
        let [row, remaining, missed, seam] =
            [r.row, r.remaining, r.missed, r.seam_jump.to_bits()].map(u64::from);
        let (status, flags) = (r.status as u64, u64::from(r.flags.bits()));
        let words = [status, flags, r.chunk, r.age_ns, r.tick, row, remaining, missed, seam];
        Line::Read(tick.now.as_nanos(), words, trace.action(i).map(to_hex))
    };
    let end = Line::End(trace.observations.len(), trace.chunks.len(), trace.ticks.len());
    std::iter::once(head)
        .chain(trace.observations.iter().map(seen))
        .chain(trace.chunks.iter().map(chunk))
        .chain(trace.ticks.iter().enumerate().map(read))
        .chain([end])
}

/// Reads a recording.
///
/// # Errors
/// [`ErrorKind::Io`] or [`ErrorKind::InvalidArgument`], naming the file and the line.
pub fn read(path: &Path) -> Result<Vec<Recorded>> {
    parse(BufReader::new(std::fs::File::open(path).map_err(cannot("read", path))?), path)
}

/// As [`read`], of the content of the file at `path`.
pub fn parse(mut file: impl BufRead, path: &Path) -> Result<Vec<Recorded>> {
    let wrong = |line: usize, what: String| {
        Error::new(ErrorKind::InvalidArgument, format!("{} line {}: {what}", path.display(), line + 1))
    };
    let (mut runs, mut open): (Vec<Recorded>, Option<Recorded>) = (Vec::new(), None);
    let mut text = Vec::new();
    for number in 0.. {
        text.clear();
        // No more than a line may have, also of a file that has no lines.
        let taken = file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
        if taken.map_err(cannot("read", path))? == 0 {
            break;
        }
        let line: Line = serde_json::from_slice(&text)
            .map_err(|e| wrong(number, format!("this is no line of a recording: {e}")))?;
        match (line, &mut open) {
            (Line::Run(head), None) => {
                let (made, settings, dim) = *head;
                if made.recording != VERSION {
                    let what = format!("recordings of version {} are not known here", made.recording);
                    return Err(wrong(number, what));
                }
                if !(1..=MAX_WIDTH).contains(&dim) {
                    let what = format!("actions of {dim} values; from 1 to {MAX_WIDTH} are possible");
                    return Err(wrong(number, what));
                }
                settings.check().map_err(|what| wrong(number, what))?;
                open = Some(Recorded { made, settings, trace: Trace { dim, ..Trace::default() } });
            }
            (Line::End(observations, chunks, reads), Some(run)) => {
                let t = &run.trace;
                if (observations, chunks, reads) != (t.observations.len(), t.chunks.len(), t.ticks.len()) {
                    return Err(wrong(number, "lines are missing before it".into()));
                }
                runs.extend(open.take());
            }
            (line, Some(run)) => {
                add(&mut run.trace, line).ok_or_else(|| wrong(number, "values out of range".into()))?;
            }
            (_, None) => return Err(wrong(number, "a run must begin with its `run` line".into())),
        }
    }
    match open {
        None if runs.is_empty() => Err(wrong(0, "the recording is empty".into())),
        None => Ok(runs),
        Some(_) => refuse(format!("{} is cut off: its `end` line is missing", path.display())),
    }
}

fn add(trace: &mut Trace, line: Line) -> Option<()> {
    let at = Timestamp::from_nanos;
    match line {
        Line::Observation(now, captured, index) => {
            trace.observations.push(Seen { now: at(now), captured: at(captured), index });
        }
        Line::Chunk(
            [number, captured, begun, published, progress, expected_ns, guided, delay],
            rejected,
            hex,
        ) => {
            let info = ChunkInfo {
                number,
                captured: at(captured),
                begun: at(begun),
                published: at(published),
                progress_at: at(progress),
                expected_ns,
                guided_rows: guided.try_into().ok()?,
                inference_delay: delay.try_into().ok()?,
                ..ChunkInfo::default()
            };
            trace.chunks.push(Computed { info, rejected, values: from_hex(&hex)? });
        }
        Line::Read(now, [status, flags, chunk, age_ns, tick, row, remaining, missed, seam], hex) => {
            let flags = Flags::from_bits_truncate(flags.try_into().ok()?);
            let reading = Reading {
                status: *Status::ALL.get(usize::try_from(status).ok()?)?,
                flags,
                chunk,
                age_ns,
                tick,
                row: row.try_into().ok()?,
                remaining: remaining.try_into().ok()?,
                missed: missed.try_into().ok()?,
                seam_jump: f32::from_bits(seam.try_into().ok()?),
            };
            let action = hex.map(|hex| from_hex(&hex).filter(|a| a.len() == trace.dim));
            let action = action.map_or(Some(None), |parsed| parsed.map(Some))?;
            // A line without an action takes as much room as one with it.
            if trace.actions.len() >= MAX_VALUES {
                return None;
            }
            trace.push(at(now), reading, action.as_deref());
        }
        Line::Run(_) | Line::End(..) => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = include_str!("../../../../fuzz/seeds/recording/one-run");

    fn refused(text: &str, words: &str) {
        let error = parse(text.as_bytes(), Path::new("run.jsonl")).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("run.jsonl"), "{error}");
    }

    #[test]
    fn a_recording_that_asks_for_too_much_is_refused() {
        assert_eq!(parse(KEPT.as_bytes(), Path::new("run.jsonl")).unwrap().len(), 1);
        for width in ["0", "4097", "1152921504606846976"] {
            refused(&KEPT.replace(", 7]}", &format!(", {width}]}}")), "line 1: actions of");
        }
        for (from, to) in [
            ("\"rate_hz\": 20.0", "\"rate_hz\": 0.0"),
            ("\"action_rate_hz\": 50.0", "\"action_rate_hz\": -1.0"),
            ("\"latency_ms\": 0.0", "\"latency_ms\": 1e300"),
        ] {
            refused(&KEPT.replacen(from, to, 1), "; it is from");
        }
        refused(&" ".repeat(MAX_LINE_BYTES as usize + 1), "line 1: this is no line of a recording");
    }
}
