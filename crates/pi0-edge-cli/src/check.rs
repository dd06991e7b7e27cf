//! `pi0-edge check`: integrity, then parity with the reference policy stage by stage.

use std::fmt::Write;

use pi0_edge::{Error, ErrorKind, InferOptions, Noise, Policy, Result, StageOutput};
use pi0_edge_golden::{Case, Deviation, Golden, Tolerance, compare};
use serde_json::{Map, Value, json};

use crate::observation::StoredObservation;
use crate::options::LoadOptions;
use crate::output::Format;
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

/// One stage of one case, compared.
struct Stage {
    name: &'static str,
    deviation: Deviation,
    /// Largest relative error allowed.
    tolerance: f64,
    /// Smallest cosine allowed.
    min_cosine: f64,
    passed: bool,
}

impl Stage {
    fn new(name: &'static str, deviation: Deviation, tolerance: &Tolerance) -> Self {
        let passed = tolerance.allows(name, &deviation);
        Stage { name, deviation, tolerance: tolerance.relative(name), min_cosine: tolerance.cosine, passed }
    }
}

struct CaseReport {
    name: String,
    num_steps: usize,
    prefix_len: usize,
    stages: Vec<Stage>,
    /// The reason why the case could not be compared at all.
    problem: Option<String>,
}

impl CaseReport {
    fn passed(&self) -> bool {
        self.problem.is_none() && self.stages.iter().all(|s| s.passed)
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut policy = args.load.load()?;
    let golden = Golden::load(policy.bundle())?;
    let cases = || golden.iter().flat_map(|g| g.cases.iter().map(|case| (case, &g.tolerance)));
    let mut reports: Vec<_> =
        cases().map(|(case, tolerance)| check_case(&mut policy, case, tolerance)).collect();
    if policy.inspect().replayed_graphs().next().is_some() {
        // A replay has to come out right whatever ran since it was captured: each once more, after all the others.
        reports.extend(cases().map(|(case, tolerance)| {
            let again = check_case(&mut policy, case, tolerance);
            CaseReport { name: format!("{}, replayed after the others", again.name), ..again }
        }));
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
fn check_case(policy: &mut Policy, case: &Case, tolerance: &Tolerance) -> CaseReport {
    compare_case(policy, case, tolerance).unwrap_or_else(|e| CaseReport {
        name: case.name.clone(),
        num_steps: case.num_steps,
        prefix_len: 0,
        stages: Vec::new(),
        problem: Some(e.to_string()),
    })
}

fn compare_case(policy: &mut Policy, case: &Case, tolerance: &Tolerance) -> Result<CaseReport> {
    let expected = &case.expected;
    let layers = policy.manifest().dimensions.layers;
    let bundle = policy.bundle();
    let observation = StoredObservation::read_golden(case, bundle)?;
    let noise = case.noise(bundle)?;
    let pixel_values = expected.pixel_values.read(bundle)?;
    let image_embeds = expected.image_embeds.read(bundle)?;
    let keys = expected.keys.read_rows(bundle, layers)?;
    let values = expected.values.read_rows(bundle, layers)?;
    let velocities = expected.v_t.read_rows(bundle, case.num_steps)?;
    let normalized = expected.actions_normalized.read(bundle)?;
    let want_actions = expected.actions.read(bundle)?;

    let mut found: Vec<(&'static str, Deviation)> = Vec::new();
    let mut tokens_differ = None;
    let options =
        InferOptions { noise: Noise::Given(&noise), num_steps: Some(case.num_steps), guidance: None };
    let mut observer = |stage: StageOutput| {
        let (name, got, want, stride) = match stage {
            StageOutput::Tokens(got) if got == expected.tokens => return Ok(()),
            StageOutput::Tokens(got) => {
                let text = format!("tokens are {got:?}; the reference's are {:?}", expected.tokens);
                tokens_differ = Some(text);
                return Ok(());
            }
            StageOutput::PixelValues(v) => ("pixel_values", v, &pixel_values, expected.pixel_values.stride),
            StageOutput::ImageEmbeds(v) => ("image_embeds", v, &image_embeds, expected.image_embeds.stride),
            StageOutput::Keys(layer, v) => ("keys", v, &keys[layer], expected.keys.stride),
            StageOutput::Values(layer, v) => ("values", v, &values[layer], expected.values.stride),
            StageOutput::Velocity(step, v) => ("v_t", v, &velocities[step], expected.v_t.stride),
            StageOutput::ActionsNormalized(v) => {
                ("actions_normalized", v, &normalized, expected.actions_normalized.stride)
            }
            _ => return Ok(()),
        };
        let deviation = compare(&got, want, stride)?;
        // Layers and steps of one stage are reported by their worst.
        match found.iter_mut().find(|(n, _)| *n == name) {
            Some((_, worst)) => *worst = worst.worst(deviation),
            None => found.push((name, deviation)),
        }
        Ok(())
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
    found.push(("actions", compare(policy.chunk().as_slice(), &want_actions, expected.actions.stride)?));
    Ok(CaseReport {
        name: case.name.clone(),
        num_steps: case.num_steps,
        prefix_len: policy.inspect().prefix_len(),
        stages: found.into_iter().map(|(name, deviation)| Stage::new(name, deviation, tolerance)).collect(),
        problem: tokens_differ,
    })
}

fn verdict(reports: &[CaseReport]) -> &'static str {
    match reports {
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
        let rows = r.stages.iter().map(|s| {
            let (d, allowed) = (&s.deviation, format!("{:.0e}", s.tolerance));
            let (error, relative) = (format!("{:.2e}", d.max_abs), format!("{:.1e}", d.relative));
            let (largest, cosine) = (format!("{:.3}", d.max_expected), format!("{:.7}", d.cosine));
            let mark = if s.passed { "" } else { "  FAIL" };
            row![format!("  {}", s.name), error, largest, relative, allowed, cosine, s.min_cosine, mark]
        });
        let head = ["  stage", "max error", "largest", "relative", "allowed", "cosine", "allowed", ""];
        if !r.stages.is_empty() {
            out += &Table::new(&head).rows(rows).text(&[22, 12, 12, 12, 12, 12, 12, 0]);
        }
    }
    let _ = writeln!(out, "\n{}", verdict(reports));
    out
}

fn as_json(policy: &Policy, golden: Option<&Golden>, reports: &[CaseReport]) -> Value {
    let stage = |s: &Stage| {
        let d = &s.deviation;
        let row = json!({
            "max_abs_error": d.max_abs, "largest": d.max_expected, "relative_error": d.relative,
            "cosine": d.cosine, "tolerance": s.tolerance, "min_cosine": s.min_cosine, "pass": s.passed,
        });
        (s.name.to_owned(), row)
    };
    let case = |r: &CaseReport| {
        json!({
            "name": r.name, "num_steps": r.num_steps, "prefix_len": r.prefix_len, "pass": r.passed(),
            "problem": r.problem, "stages": r.stages.iter().map(stage).collect::<Map<_, _>>(),
        })
    };
    json!({
        "pass": reports.iter().all(CaseReport::passed),
        "verdict": verdict(reports),
        "files_verified": policy.manifest().files.len(),
        "reference": golden.map(|g| &g.reference),
        "cuda_graphs": policy.inspect().replayed_graphs().collect::<Vec<_>>(),
        "cases": reports.iter().map(case).collect::<Vec<_>>(),
    })
}
