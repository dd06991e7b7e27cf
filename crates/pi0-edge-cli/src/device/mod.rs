//! `pi0-edge bench device`: everything about a policy's speed on the machine it is to run on, with a report.

mod environment;
mod jitter;
mod phases;
mod report;
mod sampler;
mod settle;
mod summary;
mod verdict;

use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use pi0_edge::{Policy, Result};

use crate::environment::{weights, word};
use crate::interrupt;
use crate::observation::StoredObservation;
use crate::options::MeasureOptions;
use crate::output::{NewFile, TableFormat, file_name, quoted, refuse};
use report::{Files, PolicyFacts, Report};
use sampler::Sampler;
use summary::Summary;
use verdict::Verdict;

/// Arguments of `bench device`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    measure: MeasureOptions,
    /// Length of the steady run
    #[arg(long, value_name = "M", default_value_t = 5.0, value_parser = positive)]
    minutes: f64,
    /// Action rate that the verdict speaks of: rows of a chunk per second, the rate the policy was trained at
    #[arg(long, value_name = "HZ", default_value_t = 50.0, value_parser = positive)]
    action_rate: f64,
    /// Idleness before a chunk that is measured for it; 0 leaves that out
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = not_negative)]
    idle: f64,
    /// Longest wait for the latency to settle
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = not_negative)]
    settle_limit: f64,
    /// Seconds for which a control loop reads actions beside inference, for its jitter; 0 leaves that out
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    control_seconds: u32,
    /// Directory for the reports (default: pi0-edge-bench-DATE here)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Also write the times of every chunk to this file, in the form of trtexec --exportTimes
    #[arg(long, value_name = "FILE")]
    export_times: Option<PathBuf>,
    /// Read the machine's sensors and properties below DIR: recorded files of another machine, for trying this out
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: TableFormat,
}

fn positive(text: &str) -> std::result::Result<f64, &'static str> {
    not_negative(text).ok().filter(|v| *v > 0.0).ok_or("must be above zero")
}

fn not_negative(text: &str) -> std::result::Result<f64, &'static str> {
    text.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0).ok_or("must not be negative")
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    if !args.root.is_dir() {
        return refuse(format!("{} is no directory", args.root.display()));
    }
    let when = date(Timestamp::now());
    let directory = args.output.clone().unwrap_or_else(|| {
        let stamp: String = when.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        PathBuf::from(format!("pi0-edge-bench-{stamp}"))
    });
    let files = Files::create(&directory)?;
    let export_times = args.export_times.as_deref().map(NewFile::create).transpose()?;
    let origin = Instant::now();
    let sampler = Sampler::start(&args.root, origin)?;
    let (policy, stored, measured, _heeding) = phases::measure(args, origin)?;
    let series = sampler.stop()?;

    let summary = Summary::of(&measured, &series);
    let environment = environment::gather(&policy, &args.measure.load, &args.root);
    let facts = facts(&policy, &stored);
    let (latency, is) = summary.stage("chunk").map(|f| f.planning()).unwrap_or((f64::NAN, "unknown"));
    drop(policy);
    // What was measured before is reported although this may fail.
    let (jitter, failed) = match args.control_seconds {
        0 => (None, None),
        _ if interrupt::requested() => (None, None),
        seconds => {
            eprintln!("a control loop beside inference, for {seconds} s");
            let measured = jitter::measure(&args.measure.load, args.measure.observation.clone(), seconds);
            measured.map_or_else(|e| (None, Some(e)), |jitter| (Some(jitter), None))
        }
    };
    let mut verdict = Verdict::of(latency, is, facts.action_horizon, args.action_rate);
    if interrupt::requested() {
        verdict.words.insert(0, "INTERRUPTED: the figures are of what was measured until then.".into());
    }
    let chunks = measured.steady.chunks;
    let report = Report { environment, policy: facts, summary, jitter, verdict, chunks, series, when };
    let written = files.write(&report);
    let exported = export_times.map_or(Ok(()), |file| file.write_bytes(report::times_json(&report.chunks)));
    args.format.print(|| report::text(&report), || report::markdown(&report), || report.json())?;
    written.and(exported)?;
    eprintln!("wrote {}: {}", directory.display(), report::FILES.join(", "));
    args.format.next(|| format!("open {}/report.html in a browser", quoted(&directory)));
    failed.filter(|_| !interrupt::requested()).map_or(Ok(()), Err)
}

fn facts(policy: &Policy, stored: &StoredObservation) -> PolicyFacts {
    let m = policy.manifest();
    PolicyFacts {
        kind: word(&m.policy),
        bundle: file_name(policy.bundle().root()),
        precision: word(&m.precision),
        weights: weights(m),
        num_steps: policy.timing().steps.len(),
        action_horizon: m.dimensions.action_horizon,
        action_dim: m.action.dim,
        cameras: stored.cameras(),
        prefix_len: policy.inspect().prefix_len(),
    }
}

/// A time in UTC as `2026-01-31T23:59:59Z`.
fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        let date = |seconds| super::date(Timestamp::from_second(seconds).unwrap());
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_772_323_199), "2026-02-28T23:59:59Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
