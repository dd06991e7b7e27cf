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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pi0_edge::{Error, ErrorKind, Policy, Result};

use crate::observation::StoredObservation;
use crate::options::LoadOptions;
use crate::output;
use phases::Plan;
use report::{PolicyFacts, Report};
use sampler::Sampler;
use summary::Summary;
use verdict::Verdict;

/// Arguments of `bench device`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
    /// Directory with observation.json and its frames (default: the bundle's first golden case, else made up)
    #[arg(long, value_name = "DIR")]
    observation: Option<PathBuf>,
    /// Length of the steady run
    #[arg(long, value_name = "M", default_value_t = 5.0, value_parser = positive)]
    minutes: f64,
    /// Euler steps (default: the bundle's)
    #[arg(long, value_name = "N")]
    num_steps: Option<usize>,
    /// The rate of the robot's control loop, which the verdict speaks of
    #[arg(long, value_name = "HZ", default_value_t = 50.0, value_parser = positive)]
    control_rate: f64,
    /// Idleness before a chunk that is measured for it; 0 leaves that out
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = not_negative)]
    idle: f64,
    /// Longest wait for the latency to settle
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = not_negative)]
    settle_limit: f64,
    /// How long a control loop reads actions beside inference, for its jitter; 0 leaves that out
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
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: crate::bench::Format,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|v: &f64| v.is_finite() && *v > 0.0).ok_or_else(|| "must be above zero".into())
}

fn not_negative(text: &str) -> std::result::Result<f64, String> {
    text.parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && *v >= 0.0)
        .ok_or_else(|| "must not be negative".into())
}

/// How often a chunk after idleness is measured.
const IDLE_REPEATS: u32 = 3;

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    if !args.root.is_dir() {
        let text = format!("{} is no directory", args.root.display());
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let when = date(now);
    let directory = args.output.clone().unwrap_or_else(|| {
        let stamp: String = when.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        PathBuf::from(format!("pi0-edge-bench-{stamp}"))
    });
    let plan = Plan {
        steady: Duration::from_secs_f64(args.minutes * 60.0),
        settle_limit: Duration::from_secs_f64(args.settle_limit),
        idle: Duration::from_secs_f64(args.idle),
        idle_repeats: if args.idle > 0.0 { IDLE_REPEATS } else { 0 },
        num_steps: args.num_steps,
    };
    let origin = Instant::now();
    let sampler = Sampler::start(&args.root, origin)?;
    let observation =
        |policy: &Policy| StoredObservation::read_or_golden(args.observation.as_deref(), policy);
    let (policy, stored, measured) = phases::measure(&plan, &args.load, &observation, origin)?;
    let series = sampler.stop()?;

    let summary = Summary::of(&measured, &series);
    let environment = environment::gather(&policy, &args.load, &args.root);
    let facts = facts(&policy, &stored);
    let (latency, is) = summary.stage("chunk").map(|f| f.planning()).unwrap_or((f64::NAN, "unknown"));
    let jitter = match args.control_seconds {
        0 => None,
        seconds => {
            eprintln!("a control loop beside inference, for {seconds} s");
            drop(policy);
            Some(jitter::measure(&args.load, args.observation.clone(), seconds)?)
        }
    };
    let verdict = Verdict::of(latency, is, facts.action_horizon, args.control_rate);
    let chunks = measured.steady.chunks;
    let report = Report { environment, policy: facts, summary, jitter, verdict, chunks, series, when };
    report.write(&directory)?;
    if let Some(path) = &args.export_times {
        let cannot = |e| Error::with_source(ErrorKind::Io, format!("cannot write {}", path.display()), e);
        std::fs::write(path, report::times_json(&report.chunks)).map_err(cannot)?;
    }
    match args.format {
        crate::bench::Format::Text => output::print(&report.text())?,
        crate::bench::Format::Md => output::print(&report.markdown())?,
        crate::bench::Format::Json => output::print_json(&report.json())?,
    }
    eprintln!("wrote {}: bench.json, bench.md, trtexec.txt, times.json, report.html", directory.display());
    Ok(())
}

fn facts(policy: &Policy, stored: &StoredObservation) -> PolicyFacts {
    let m = policy.manifest();
    let name = |v: serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    PolicyFacts {
        kind: name(serde_json::to_value(m.policy).unwrap_or_default()),
        precision: name(serde_json::to_value(m.precision).unwrap_or_default()),
        num_steps: policy.timing().steps.len(),
        action_horizon: m.dimensions.action_horizon,
        action_dim: m.action.dim,
        cameras: stored.cameras(),
        prefix_len: policy.inspect().prefix_len(),
        bundle: policy
            .bundle()
            .root()
            .file_name()
            .map(|f| f.to_string_lossy().into_owned())
            .unwrap_or_default(),
        random_weights: m.source.format == "synthetic",
    }
}

/// Seconds since 1970 as `2026-01-31T23:59:59Z`.
fn date(seconds: u64) -> String {
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Years that begin in March: the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_772_323_199), "2026-02-28T23:59:59Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
