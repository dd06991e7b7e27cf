//! Runs single stages on request, so that another program can alternate them with its own.
//!
//!     cargo bench --bench stage_runner -- --bundle DIR [--threads N] [--weights auto|mapped|packed] [--views N]
//!         [--provider cpu|cuda|tensorrt] [--ort-library FILE]
//!
//! Loads the bundle, computes one chunk from made-up frames of every camera and a prompt of as many tokens as the
//! bundle allows, prints `ready`, and then answers each line on stdin (`vision`, `prefix`, `denoise_step` or
//! `chunk`) by running that stage once and printing `{"ms": …}`. `benches/side_by_side.py` drives it.

use std::io::{BufRead, Write};

use pi0_edge::{Frame, InferOptions, Noise, Observation, Policy, PolicyOptions, Stage, Verify, Weights};

type Failure = Box<dyn std::error::Error>;

struct Args {
    bundle: String,
    views: Option<usize>,
    options: PolicyOptions,
}

fn arguments() -> Result<Args, Failure> {
    let mut args = Args {
        bundle: String::new(),
        views: None,
        // The caller runs many sessions on one large bundle: `pi0-edge check` is where bytes are verified.
        options: PolicyOptions { verify: Verify::Size, ..PolicyOptions::default() },
    };
    let mut words = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--bundle" => args.bundle = value,
            "--threads" => args.options.threads = value.parse()?,
            "--views" => args.views = Some(value.parse()?),
            "--provider" => args.options.provider = value.parse()?,
            "--ort-library" => args.options.ort_library = Some(value.into()),
            "--weights" => {
                args.options.weights = match value.as_str() {
                    "auto" => Weights::Auto,
                    "mapped" => Weights::Mapped,
                    "packed" => Weights::Packed,
                    other => return Err(format!("--weights {other}").into()),
                }
            }
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(args)
}

/// The longest prompt the bundle takes, so that the prefix is the longest one.
fn infer_with_longest_prompt(policy: &mut Policy, views: usize) -> Result<(), Failure> {
    let names: Vec<String> = policy.manifest().cameras.iter().take(views).map(|c| c.name.clone()).collect();
    let pixels: Vec<u8> = (0..640 * 480 * 3).map(|i: u32| (i * 31 % 251) as u8).collect();
    let frame = Frame::new(&pixels, 640, 480)?;
    let images: Vec<_> = names.iter().map(|n| (n.as_str(), frame)).collect();
    let state = vec![0.1; policy.manifest().state.dim];
    let max_tokens = policy.manifest().prompt.max_tokens;
    for words in (1..=max_tokens).rev() {
        let prompt = vec!["pick"; words].join(" ");
        let observation = Observation { images: &images, state: &state, prompt: Some(&prompt) };
        match policy
            .infer(&observation, &InferOptions { noise: Noise::Seed(0), num_steps: Some(1), guidance: None })
        {
            Ok(_) => return Ok(()),
            Err(e) if words > 1 && e.kind() == pi0_edge::ErrorKind::Observation => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err("no prompt fits".into())
}

fn main() -> Result<(), Failure> {
    let args = arguments()?;
    if args.bundle.is_empty() {
        // `cargo bench` without arguments runs every bench; this one has nothing to say on its own.
        println!("stage_runner: nothing to do without --bundle DIR");
        return Ok(());
    }
    let mut policy = Policy::load(&args.bundle, &args.options)?;
    let views = args.views.unwrap_or(policy.manifest().cameras.len());
    infer_with_longest_prompt(&mut policy, views)?;
    policy.capture_graphs()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready prefix_len={}", policy.inspect().prefix_len())?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let stages: &[Stage] = match line?.trim() {
            "vision" => &[Stage::Vision],
            "prefix" => &[Stage::Prefix],
            "denoise_step" => &[Stage::DenoiseStep],
            "chunk" => &[Stage::Vision, Stage::Prefix, Stage::DenoiseLoop],
            other => return Err(format!("unknown stage {other}").into()),
        };
        let mut ms = 0.0;
        for &stage in stages {
            ms += policy.inspect_mut().run_stage(stage)?.as_secs_f64() * 1e3;
        }
        writeln!(out, "{{\"ms\": {ms}}}")?;
        out.flush()?;
    }
    Ok(())
}
