//! `pi0-edge check`: integrity, then parity with the reference policy stage by stage; without its outputs,
//! self-consistency.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;

use pi0_edge::{
    Error, ErrorKind, InferOptions, Manifest, Noise, Policy, Provider, Result, StageOutput, Verify,
};
use pi0_edge_golden::{Case, Deviation, Golden, Tolerance, compare};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::interrupt::{self, Heeding};
use crate::observation::StoredObservation;
use crate::options::{Choices, LoadOptions, choice};
use crate::output::Format;
use crate::progress::{Progress, Unit};
use crate::row;
use crate::table::Table;

/// The things that a check can show, each more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Integrity,
    SelfConsistency,
    Parity,
}

const LEVELS: &Choices<Level> = &[
    ("integrity", "Every file is what the manifest says; nothing is computed", Level::Integrity),
    ("self-consistency", "And finite actions are computed, the same twice", Level::SelfConsistency),
    ("parity", "And they are what the reference policy computed, stage by stage", Level::Parity),
];

const RESULTS: &str = "\
The last line says what was shown: PARITY, SELF-CONSISTENCY ONLY, INTEGRITY ONLY or FAIL. Exit status 0: what was looked
at is as it should be; 1: it is not, or parity was asked for and the bundle has no golden data to show it by.

Golden data are what the reference policy computed. One command records them, and the export takes them along:
  scripts/reference.py CHECKPOINT_DIR";

/// The command that makes parity possible.
const RECORD: &str =
    "record what the reference policy computes (scripts/reference.py CHECKPOINT_DIR), export again";

/// Arguments of `check`.
#[derive(clap::Args, Debug)]
#[command(after_help = RESULTS)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
    /// What is to be shown (default: parity where the bundle has golden data, else self-consistency)
    #[arg(long, value_parser = choice(LEVELS))]
    level: Option<Level>,
    /// Format of the output on stdout
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

struct CaseReport<'a> {
    name: String,
    num_steps: usize,
    prefix_len: usize,
    tolerance: &'a Tolerance,
    /// The stages in the order they ran.
    stages: Vec<(&'static str, Deviation)>,
    /// The reason why the case could not be compared at all.
    problem: Option<String>,
}

impl CaseReport<'_> {
    fn passed(&self) -> bool {
        self.problem.is_none() && self.stages.iter().all(|(name, d)| self.tolerance.allows(name, d))
    }
}

/// Everything that was looked at.
struct Report<'a> {
    /// The level that is shown if every case passes.
    level: Level,
    verify: Verify,
    manifest: &'a Manifest,
    golden: Option<&'a Golden>,
    cases: Vec<CaseReport<'a>>,
    /// The graphs that a GPU replays.
    replayed: Vec<&'static str>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let verify = args.load.verify;
    if args.level == Some(Level::Integrity) {
        let bundle = args.load.open()?;
        let (level, manifest) = (Level::Integrity, bundle.manifest());
        let report = Report { level, verify, manifest, golden: None, cases: vec![], replayed: vec![] };
        args.format.print(|| report.text(), || report.json())?;
        args.format.next(|| format!("pi0-edge check {}", args.load.typed()));
        return Ok(());
    }
    let mut policy = args.load.load()?;
    let golden = match args.level {
        Some(Level::SelfConsistency) => None,
        _ => Golden::load(policy.bundle())?,
    };
    if args.level == Some(Level::Parity) && golden.is_none() {
        let text = format!("the bundle has no golden data to show parity by: {RECORD}");
        return Err(Error::new(ErrorKind::Parity, text));
    }
    // A CPU computes the same bits again; of what a GPU adds up, the order is its own.
    let allowed = if policy.provider() == Provider::Cpu { 0.0 } else { 1e-5 };
    let twice = Tolerance {
        stages: allowed,
        actions: allowed,
        cosine: 0.9999,
        by_stage: BTreeMap::new(),
        relative_l2: BTreeMap::new(),
    };
    let (level, cases) = match &golden {
        Some(golden) => (Level::Parity, compare_all(&mut policy, golden)),
        None => (Level::SelfConsistency, vec![compute_twice(&mut policy, &twice)]),
    };
    let (manifest, golden) = (policy.manifest(), golden.as_ref());
    let replayed = policy.inspect().replayed_graphs().collect();
    let report = Report { level, verify, manifest, golden, cases, replayed };
    args.format.print(|| report.text(), || report.json())?;
    match report.cases.iter().filter(|case| !case.passed()).count() {
        0 => {
            let (load, observation) = (args.load.typed(), "a directory with observation.json and frames");
            args.format.next(|| format!("pi0-edge run {load} --observation DIR   # DIR: {observation}"));
            Ok(())
        }
        n if golden.is_some() => Err(Error::new(
            ErrorKind::Parity,
            format!("{n} of {} golden cases differ from the reference policy", report.cases.len()),
        )),
        _ => Err(Error::new(ErrorKind::Parity, "the bundle does not compute finite actions, the same twice")),
    }
}

/// Compares every golden case, or those before an interruption.
fn compare_all<'a>(policy: &mut Policy, golden: &'a Golden) -> Vec<CaseReport<'a>> {
    let _heeding = Heeding::new();
    let steps = golden.cases.iter().map(|case| case.num_steps as u64).sum();
    let (progress, done) = (Progress::new("comparing", steps, Unit::Of("denoise steps")), Cell::new(0));
    let stepped = || {
        done.set(done.get() + 1);
        progress.set(done.get());
        if interrupt::requested() { Err(interrupt::nothing_yet()) } else { Ok(()) }
    };
    // A case that does not run is a problem of that case.
    let check = |policy: &mut Policy, case: &Case| {
        compare_case(policy, case, &golden.tolerance, &stepped).unwrap_or_else(|e| CaseReport {
            name: case.name.clone(),
            num_steps: case.num_steps,
            prefix_len: 0,
            tolerance: &golden.tolerance,
            stages: Vec::new(),
            problem: Some(e.to_string()),
        })
    };
    let mut reports: Vec<_> = golden.cases.iter().map(|case| check(policy, case)).collect();
    if policy.inspect().replayed_graphs().next().is_some() {
        // A replay has to come out right whatever ran since it was captured: each once more, after all the others.
        reports.extend(golden.cases.iter().map(|case| {
            let again = check(policy, case);
            CaseReport { name: format!("{}, replayed after the others", again.name), ..again }
        }));
    }
    if interrupt::requested() {
        // Those that did not come to their end say nothing.
        reports.retain(|r| !r.stages.is_empty());
    }
    reports
}

/// Computes a chunk, and from the same observation and noise another.
fn compute_twice<'a>(policy: &mut Policy, tolerance: &'a Tolerance) -> CaseReport<'a> {
    let (options, progress) = (InferOptions::default(), Progress::new("computing", 2, Unit::Of("chunks")));
    let computed = StoredObservation::read_or_golden(None, policy).and_then(|observation| {
        observation.with(|o| {
            let first = policy.infer(o, &options)?.as_slice().to_vec();
            progress.set(1);
            policy.capture_graphs()?;
            compare(policy.infer(o, &options)?.as_slice(), &first, 1)
        })
    });
    CaseReport {
        name: "a chunk, and the same again".into(),
        num_steps: policy.timing().steps.len(),
        prefix_len: policy.inspect().prefix_len(),
        tolerance,
        stages: computed.as_ref().ok().map(|deviation| ("actions", *deviation)).into_iter().collect(),
        problem: computed.err().map(|e| e.to_string()),
    }
}

/// Runs one case and compares it.
fn compare_case<'a>(
    policy: &mut Policy,
    case: &Case,
    tolerance: &'a Tolerance,
    stepped: &dyn Fn() -> Result<()>,
) -> Result<CaseReport<'a>> {
    let expected = &case.expected;
    let layers = policy.manifest().dimensions.layers;
    let bundle = policy.bundle();
    let observation = StoredObservation::read_golden(case, bundle)?;
    let noise = case.noise(bundle)?;
    let mut wanted = BTreeMap::new();
    for (stage, sampled) in expected.stages() {
        // Layers and steps were sampled one by one.
        let parts = match stage {
            "keys" | "values" => sampled.read_rows(bundle, layers)?,
            "v_t" => sampled.read_rows(bundle, case.num_steps)?,
            _ => vec![sampled.read(bundle)?],
        };
        wanted.insert(stage, (parts, sampled.stride));
    }

    let mut found: Vec<(&'static str, Deviation)> = Vec::new();
    let mut note = |stage: &'static str, part: usize, got: &[f32]| -> Result<()> {
        let (parts, stride) = &wanted[stage];
        let deviation = compare(got, &parts[part], *stride)?;
        // Layers and steps of one stage are reported by their worst.
        match found.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, worst)) => *worst = worst.worst(deviation),
            None => found.push((stage, deviation)),
        }
        Ok(())
    };
    let mut problem = None;
    let options =
        InferOptions { noise: Noise::Given(&noise), num_steps: Some(case.num_steps), guidance: None };
    let mut observer = |stage: StageOutput| match stage {
        StageOutput::Tokens(got) => {
            let differ = || format!("tokens are {got:?}; the reference's are {:?}", expected.tokens);
            problem = (got != expected.tokens).then(differ).or(problem.take());
            Ok(())
        }
        StageOutput::PixelValues(got) => note("pixel_values", 0, &got),
        StageOutput::ImageEmbeds(got) => note("image_embeds", 0, &got),
        StageOutput::Keys(layer, got) => note("keys", layer, &got),
        StageOutput::Values(layer, got) => note("values", layer, &got),
        StageOutput::Velocity(step, got) => note("v_t", step, &got).and_then(|()| stepped()),
        StageOutput::ActionsNormalized(got) => note("actions_normalized", 0, &got),
        _ => Ok(()),
    };
    observation.with(|o| {
        policy.inspect_mut().infer_observed(o, &options, &mut observer)?;
        // What a GPU replays has to come out as what it runs: once more, held against the same.
        policy.capture_graphs()?;
        if policy.inspect().replayed_graphs().next().is_some() {
            policy.inspect_mut().infer_observed(o, &options, &mut observer)?;
        }
        Ok(())
    })?;
    note("actions", 0, policy.chunk().as_slice())?;
    Ok(CaseReport {
        name: case.name.clone(),
        num_steps: case.num_steps,
        prefix_len: policy.inspect().prefix_len(),
        tolerance,
        stages: found,
        problem,
    })
}

impl Report<'_> {
    fn passed(&self) -> bool {
        self.cases.iter().all(CaseReport::passed)
    }

    /// Returns the level that is shown; none if a case failed, or was not come to.
    fn shown(&self) -> Option<Level> {
        (self.passed() && !interrupt::requested()).then_some(self.level)
    }

    fn verdict(&self) -> String {
        match (self.shown(), self.golden) {
            (Some(Level::Parity), golden) => format!(
                "PARITY: the bundle computes what the reference policy computes, its actions to {:.0e} of the largest",
                golden.map_or(0.0, |golden| golden.tolerance.relative("actions"))
            ),
            (Some(Level::SelfConsistency), _) => format!(
                "SELF-CONSISTENCY ONLY: the bundle computes finite actions, the same twice; whether they are the \
                 policy's, nothing here can tell. For that: {RECORD}"
            ),
            (Some(Level::Integrity), _) => {
                "INTEGRITY ONLY: the files are what the manifest says; nothing was computed".to_owned()
            }
            (None, _) if self.passed() => {
                "INTERRUPTED: what is above is as it should be; the rest was not looked at".to_owned()
            }
            (None, Some(_)) => {
                "FAIL: the bundle does not compute what the reference policy computes; do not run it on a robot"
                    .to_owned()
            }
            (None, None) => {
                "FAIL: the bundle does not compute finite actions, the same twice; do not run it on a robot"
                    .to_owned()
            }
        }
    }

    fn text(&self) -> String {
        let compared = match self.verify {
            Verify::Size => "files have the recorded sizes; their bytes were not compared",
            _ => "files verified",
        };
        let mut out = format!("integrity: {} {compared}\n", self.manifest.files.len());
        if let Some(g) = self.golden {
            let r = &g.reference;
            let _ = writeln!(
                out,
                "reference: lerobot {}, transformers {}, torch {}, {}",
                r.lerobot, r.transformers, r.torch, r.dtype
            );
        }
        for r in &self.cases {
            let _ = writeln!(out, "\n{} ({} steps, prefix of {} rows)", r.name, r.num_steps, r.prefix_len);
            if let Some(problem) = &r.problem {
                let _ = writeln!(out, "  FAIL {problem}");
            }
            let rows = r.stages.iter().map(|(name, d)| {
                let (allowed, least) = (format!("{:.0e}", r.tolerance.relative(name)), r.tolerance.cosine);
                let (error, relative) = (format!("{:.2e}", d.max_abs), format!("{:.1e}", d.relative));
                let (largest, cosine) = (format!("{:.3}", d.max_expected), format!("{:.7}", d.cosine));
                let l2 = format!("{:.1e}", d.relative_l2);
                let most =
                    r.tolerance.relative_l2.get(*name).map_or("-".into(), |most| format!("{most:.0e}"));
                let mark = if r.tolerance.allows(name, d) { "" } else { "  FAIL" };
                row![format!("  {name}"), error, largest, relative, allowed, l2, most, cosine, least, mark]
            });
            let head = [
                "  stage",
                "max error",
                "largest",
                "relative",
                "allowed",
                "relative L2",
                "allowed",
                "cosine",
                "allowed",
                "",
            ];
            if !r.stages.is_empty() {
                out += &Table::new(&head).rows(rows).text(&[22, 12, 10, 10, 9, 13, 9, 12, 11, 0]);
            }
        }
        let _ = writeln!(out, "\n{}", self.verdict());
        out
    }

    fn json(&self) -> Value {
        let case = |r: &CaseReport| {
            let stage = |(name, d): &(&'static str, Deviation)| {
                let row = json!({
                    "max_abs_error": d.max_abs, "largest": d.max_expected, "relative_error": d.relative,
                    "relative_l2": d.relative_l2, "cosine": d.cosine, "tolerance": r.tolerance.relative(name),
                    "max_relative_l2": r.tolerance.relative_l2.get(*name), "min_cosine": r.tolerance.cosine,
                    "pass": r.tolerance.allows(name, d),
                });
                ((*name).to_owned(), row)
            };
            json!({
                "name": r.name, "num_steps": r.num_steps, "prefix_len": r.prefix_len, "pass": r.passed(),
                "problem": r.problem, "stages": r.stages.iter().map(stage).collect::<Map<_, _>>(),
            })
        };
        json!({
            "shown": self.shown(),
            "verdict": self.verdict(),
            "files_verified": self.manifest.files.len(),
            "reference": self.golden.map(|g| &g.reference),
            "cuda_graphs": self.replayed,
            "cases": self.cases.iter().map(case).collect::<Vec<_>>(),
        })
    }
}
