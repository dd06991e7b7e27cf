//! `pi0-edge check`: integrity, then parity with the reference policy stage by stage.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;

use pi0_edge::{Error, ErrorKind, InferOptions, Noise, Policy, Result, StageOutput};
use pi0_edge_golden::{Case, Deviation, Golden, Tolerance, compare};
use serde_json::{Map, Value, json};

use crate::interrupt::{self, Heeding};
use crate::observation::StoredObservation;
use crate::options::LoadOptions;
use crate::output::Format;
use crate::progress::{Progress, Unit};
use crate::row;
use crate::table::Table;

/// Arguments of `check`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    load: LoadOptions,
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

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut policy = args.load.load()?;
    let golden = Golden::load(policy.bundle())?;
    let cases = || golden.iter().flat_map(|g| g.cases.iter().map(|case| (case, &g.tolerance)));
    let steps = cases().map(|(case, _)| case.num_steps as u64).sum();
    let (_heeding, progress) = (Heeding::new(), Progress::new("comparing", steps, Unit::Of("denoise steps")));
    let (mut reports, done) = (Vec::new(), Cell::new(0));
    let stepped = || {
        done.set(done.get() + 1);
        progress.set(done.get());
        if interrupt::requested() { Err(interrupt::nothing_yet()) } else { Ok(()) }
    };
    for (case, tolerance) in cases() {
        reports.push(check_case(&mut policy, case, tolerance, &stepped));
    }
    if policy.inspect().replayed_graphs().next().is_some() {
        // A replay has to come out right whatever ran since it was captured: each once more, after all the others.
        reports.extend(cases().map(|(case, tolerance)| {
            let again = check_case(&mut policy, case, tolerance, &stepped);
            CaseReport { name: format!("{}, replayed after the others", again.name), ..again }
        }));
    }
    drop(progress);
    if interrupt::requested() {
        // Those that did not come to their end say nothing.
        reports.retain(|r| !r.stages.is_empty());
    }
    let failed = reports.iter().filter(|r| !r.passed()).count();
    let golden = golden.as_ref();
    args.format.print(|| text(&policy, golden, &reports), || as_json(&policy, golden, &reports))?;
    if failed > 0 {
        let text = format!("{failed} of {} golden cases differ from the reference policy", reports.len());
        return Err(Error::new(ErrorKind::Parity, text));
    }
    Ok(())
}

/// Runs one case and compares it; a case that does not run is a problem of that case.
fn check_case<'a>(
    policy: &mut Policy,
    case: &Case,
    tolerance: &'a Tolerance,
    stepped: &dyn Fn() -> Result<()>,
) -> CaseReport<'a> {
    compare_case(policy, case, tolerance, stepped).unwrap_or_else(|e| CaseReport {
        name: case.name.clone(),
        num_steps: case.num_steps,
        prefix_len: 0,
        tolerance,
        stages: Vec::new(),
        problem: Some(e.to_string()),
    })
}

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

fn verdict(reports: &[CaseReport]) -> &'static str {
    match reports {
        r if interrupt::requested() && r.iter().all(CaseReport::passed) => {
            "INTERRUPTED: the cases above compute what the reference policy computes; the others were not compared"
        }
        [] => "PASS: every file is what the manifest says; there is no golden data to compare outputs with",
        r if r.iter().all(CaseReport::passed) => {
            "PASS: the bundle computes what the reference policy computes"
        }
        _ => "FAIL: the bundle does not compute what the reference policy computes; do not run it on a robot",
    }
}

fn text(policy: &Policy, golden: Option<&Golden>, reports: &[CaseReport]) -> String {
    let files = policy.manifest().files.len();
    let mut out = format!("integrity: {files} files verified\n");
    if let Some(g) = golden {
        let r = &g.reference;
        let _ = writeln!(
            out,
            "reference: lerobot {}, transformers {}, torch {}, {}",
            r.lerobot, r.transformers, r.torch, r.dtype
        );
    }
    for r in reports {
        let _ = writeln!(out, "\n{} ({} steps, prefix of {} rows)", r.name, r.num_steps, r.prefix_len);
        if let Some(problem) = &r.problem {
            let _ = writeln!(out, "  FAIL {problem}");
        }
        let rows = r.stages.iter().map(|(name, d)| {
            let (allowed, least) = (format!("{:.0e}", r.tolerance.relative(name)), r.tolerance.cosine);
            let (error, relative) = (format!("{:.2e}", d.max_abs), format!("{:.1e}", d.relative));
            let (largest, cosine) = (format!("{:.3}", d.max_expected), format!("{:.7}", d.cosine));
            let l2 = format!("{:.1e}", d.relative_l2);
            let most = r.tolerance.relative_l2.get(*name).map_or("-".into(), |most| format!("{most:.0e}"));
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
    let _ = writeln!(out, "\n{}", verdict(reports));
    out
}

fn as_json(policy: &Policy, golden: Option<&Golden>, reports: &[CaseReport]) -> Value {
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
        "pass": !interrupt::requested() && reports.iter().all(CaseReport::passed),
        "verdict": verdict(reports),
        "files_verified": policy.manifest().files.len(),
        "reference": golden.map(|g| &g.reference),
        "cuda_graphs": policy.inspect().replayed_graphs().collect::<Vec<_>>(),
        "cases": reports.iter().map(case).collect::<Vec<_>>(),
    })
}
