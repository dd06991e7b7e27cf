//! `pi0-edge inspect`: the contents of a bundle.

use std::fmt::Write;
use std::path::PathBuf;

use pi0_edge::bundle::{GraphName, PromptFormat, TensorSpec};
use pi0_edge::internals::one_line;
use pi0_edge::{Bundle, Manifest, Provider, Result, Verify};
use pi0_edge_doctor::{BOARDS, BundleFacts, MemoryNeeds, fits};
use serde_json::{Value, json};

use crate::environment::word;
use crate::output::{Format, quoted};

/// Most characters that are shown of a prompt.
const MAX_PROMPT: usize = 200;

/// Arguments of `inspect`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The bundle's directory
    bundle: PathBuf,
    /// Show the memory it takes, and the boards that have it
    #[arg(long)]
    memory: bool,
    /// `text` for a summary, `json` for the manifest as it was understood
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let bundle = Bundle::open(&args.bundle, Verify::Size, &mut |_, _| {})?;
    let manifest = bundle.manifest();
    if args.memory {
        let needs = BundleFacts::read(&args.bundle).memory;
        return args.format.print(|| memory_text(&needs), || memory_json(&needs));
    }
    args.format.print(|| text(manifest), || serde_json::to_value(manifest).unwrap_or_default())?;
    args.format.next(|| format!("pi0-edge check {}", quoted(&args.bundle)));
    Ok(())
}

/// A question to a board's memory: a label, the bytes, and where the figure comes from.
fn demands(needs: &MemoryNeeds) -> Vec<(&'static str, u64, &'static str)> {
    let mut rows = vec![
        (
            "running_cpu",
            needs.running(Provider::Cpu, false),
            "the weights and a sixteenth, as measured at full size",
        ),
        ("running_gpu", needs.running(Provider::Cuda, false), "and half a GiB for CUDA, which is assumed"),
        ("building", needs.building(), "engines: three times the largest graph's weights"),
    ];
    if needs.precision == "fp16" {
        rows.insert(
            1,
            ("running_x86_64", needs.running(Provider::Cpu, true), "fp16 weights become fp32 there"),
        );
    }
    rows
}

fn memory_json(needs: &MemoryNeeds) -> Value {
    let boards = BOARDS.map(|(board, memory)| {
        let fit =
            demands(needs).into_iter().map(|(what, bytes, _)| (what.to_owned(), json!(fits(bytes, memory))));
        (board.to_owned(), Value::Object(fit.collect()))
    });
    let mut all = json!({
        "weights": needs.weights, "token_table": needs.token_table, "engines": needs.engines(),
        "boards": Value::Object(boards.into_iter().collect()),
    });
    for (what, bytes, _) in demands(needs) {
        all[what] = json!(bytes);
    }
    all
}

fn memory_text(needs: &MemoryNeeds) -> String {
    let gb = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let mut out = String::new();
    let mut line =
        |what: &str, bytes: u64, about: &str| _ = writeln!(out, "{what:<18}{:>10}  {about}", gb(bytes));
    for (graph, bytes) in &needs.weights {
        line(graph, *bytes, "weights");
    }
    line("token table", needs.token_table, "mapped; a run touches the rows of its prompts");
    line("engines", needs.engines(), "TensorRT's: the weights again, on disk and in memory");
    for (what, bytes, about) in demands(needs) {
        line(&what.replacen('_', " ", 1), bytes, about);
    }
    let demands = demands(needs).into_iter().filter(|(what, ..)| *what != "running_x86_64");
    let demands: Vec<_> = demands.map(|(what, bytes, _)| (what.replace('_', " "), bytes)).collect();
    for (board, memory) in BOARDS {
        let fit = demands.iter().map(|(what, bytes)| format!("{what}: {}", fits(*bytes, memory)));
        _ = write!(out, "\n{board:<18}  {}", fit.collect::<Vec<_>>().join(", "));
    }
    out + "\n"
}

fn shape(spec: &TensorSpec) -> String {
    let dims: Vec<String> = spec.shape.iter().map(ToString::to_string).collect();
    format!("{} [{}]", spec.dtype, dims.join(", "))
}

fn text(m: &Manifest) -> String {
    let d = &m.dimensions;
    let mut out = String::new();
    let size: u64 = m.files.values().map(|f| f.size).sum();
    let mut line = |key: &str, value: String| _ = writeln!(out, "{key:<12}{value}");
    line("policy", format!("{} from {} ({})", word(&m.policy), m.source.checkpoint, m.source.format));
    line("precision", format!("{}, for {}", word(&m.precision), word(&m.target)));
    if let Some(q) = &m.quantization {
        let (kept, c) = (q.kept.len(), &q.calibration);
        line(
            "quantised",
            format!(
                "{}, {kept} products kept more exact; calibrated with {} observations of {}",
                q.scheme, c.observations, c.source
            ),
        );
    }
    line("size", format!("{:.1} MB in {} files", size as f64 / 1e6, m.files.len()));
    for c in &m.cameras {
        let need = if c.required { "required" } else { "may be absent" };
        line("camera", format!("{} ({need})", c.name));
    }
    line("image", format!("{} × {}, {} tokens a view", d.image_width, d.image_height, d.tokens_per_view));
    let aloha = if m.adapt_to_pi { ", ALOHA's, converted as by openpi's adapt_to_pi" } else { "" };
    line("state", format!("{} values ({} padded){aloha}", m.state.dim, m.state.padded_dim));
    let relative = if m.action.relative_mask.is_some() { ", relative to the state" } else { "" };
    line(
        "action",
        format!(
            "{} × {} values ({} padded){relative}{aloha}",
            d.action_horizon, m.action.dim, m.action.padded_dim
        ),
    );
    line(
        "prompt",
        format!(
            "at most {} tokens, longer ones are {}{}; {}",
            m.prompt.max_tokens,
            if m.prompt.truncation { "cut" } else { "refused" },
            match m.prompt.format {
                PromptFormat::Pi05State => ", the state in the prompt",
                PromptFormat::Pi05PaddedState => ", the padded state in the prompt",
                _ => "",
            },
            match &m.prompt.default {
                Some(task) => one_line(&format!("the default is {task:?}"), MAX_PROMPT),
                None => "there is no default: every observation brings its own".to_owned(),
            }
        ),
    );
    line("flow", format!("{} steps by default", m.flow.num_steps));
    line(
        "prefix",
        format!("{} layers of width {}, {} heads of {}", d.layers, d.prefix_width, d.query_heads, d.head_dim),
    );
    if let Some(bucket) = m.prefix_bucket {
        line("", format!("padded to a multiple of {bucket} rows"));
    }
    line("expert", format!("{} layers of width {}", d.layers, d.expert_width));
    line(
        "vision",
        format!("{} layers of width {}, {} heads", d.vision_layers, d.vision_width, d.vision_heads),
    );
    line("golden", m.golden.clone().unwrap_or_else(|| "none".into()));
    for name in GraphName::ALL {
        let g = m.graph(name);
        let _ = writeln!(out, "\n{name} ({})", g.file);
        let cache = |t: &&TensorSpec| t.name.contains("present.") || t.name.contains("past_key_values.");
        for (side, tensors) in [("in ", &g.inputs), ("out", &g.outputs)] {
            for t in tensors.iter().filter(|t| !cache(t)) {
                let _ = writeln!(out, "  {side} {:<16} {}", t.name, shape(t));
            }
            let kv: Vec<_> = tensors.iter().filter(cache).collect();
            if let [first, .., last] = &kv[..] {
                let _ = writeln!(out, "  {side} {} … {}  {}", first.name, last.name, shape(first));
            }
        }
    }
    out
}
