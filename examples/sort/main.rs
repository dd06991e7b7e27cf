//! Sorting from a moving belt: a policy that does something, in closed loop on the runtime.
//!
//!     cargo run --release --example sort -- [--bundle DIR] [--realtime] [--episodes N] [--seed N] [--delay MS]
//!         [--splice RULE] [--rtc HORIZON] [--replan TICKS] [--steps N] [--prompt-swap] [--picture FILE] [--format text|json]
//!     cargo run --release --example sort -- --demonstrations DIR [--frames N] [--seed N]
//!
//!   --bundle DIR      the policy; models/pi0-sort when not given
//!   --expert          no policy: the chunks of the scripted expert, which knows the world
//!   --realtime        in the machine's time, on the inference thread; else in virtual time, the same bits each time
//!   --episodes N      how many; 100
//!   --seed N          the first episode's; each draws its prompt and its scene from its own
//!   --delay MS        what a chunk takes in virtual time, and takes at least in the machine's; 0
//!   --rtc HORIZON     real-time chunking, with guidance up to this row
//!   --splice RULE     the row at which a chunk takes over: time, command, state or arrival; else as the runtime does
//!   --replan TICKS    a chunk is begun this long after the one before at the earliest; else as the runtime does
//!   --steps N         denoise steps; else the bundle's
//!   --prompt-swap     asks for the other block: nothing may be sorted then
//!   --picture FILE    a GIF of the first episode in virtual time, without and with real-time chunking
//!   --demonstrations  writes frames with the expert's chunks for training, see `demonstrations.rs`

mod arguments;
mod camera;
mod closed_loop;
mod demonstrations;
mod expert;
mod font;
mod gif;
mod picture;
mod random;
mod report;
mod sorter;
mod view;
mod world;

use std::io::IsTerminal;
use std::process::ExitCode;

use pi0_edge::RuntimeConfig;
use pi0_edge::rtc::RtcConfig;
use pi0_edge::runtime::Replan;
use serde_json::json;

use arguments::Arguments;
use closed_loop::{Loop, PERIOD, Result};
use picture::Shot;
use report::Report;
use sorter::{Expert, Sorter, load};
use view::View;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    match &arguments.demonstrations {
        Some(directory) => Ok(demonstrations::write(directory, arguments.frames, arguments.seed)?),
        None if arguments.expert => sort(&arguments, || Ok(Expert::default())),
        None => sort(&arguments, || Ok(load(&arguments.bundle, arguments.steps)?)),
    }
}

/// Runs the episodes, and draws the first of them if there is to be a picture.
fn sort<I: Sorter + 'static>(arguments: &Arguments, sorter: impl Fn() -> Result<I>) -> Result<()>
where
    I::Observation: 'static,
{
    if let Some(file) = &arguments.picture {
        // Guidance up to the row after those that are executed while a chunk is computed.
        let rows = arguments.delay.as_nanos().div_ceil(PERIOD.as_nanos()) as usize;
        let horizon = arguments.rtc.unwrap_or(rows + 1);
        let delay = arguments.delay.as_millis();
        let runs =
            [(format!("{delay} ms a chunk"), None), (format!("with RTC, horizon {horizon}"), Some(horizon))];
        let runs = runs.map(|(title, rtc)| -> Result<_> {
            let mut shots = vec![];
            let mut run = Loop::in_virtual_time(sorter()?, &config(arguments, rtc), arguments.delay)?;
            let episode = run.run(
                arguments.seed,
                |goal| goal,
                |run, moment| {
                    shots.push(Shot::take(moment, &run.chunk(moment.reading.chunk)));
                },
            )?;
            Ok((title, shots, episode))
        });
        let [off, on] = runs;
        std::fs::write(file, picture::draw(&[off?, on?]))?;
        eprintln!("the picture: {}", file.display());
    }
    let config = config(arguments, arguments.rtc);
    let start = if arguments.realtime { Loop::in_real_time } else { Loop::in_virtual_time };
    let mut run = start(sorter()?, &config, arguments.delay)?;
    let mut view = (arguments.realtime && !arguments.json && std::io::stdout().is_terminal()).then(View::new);
    let mut report = Report::default();
    for episode in 0..arguments.episodes {
        let ask = |goal: world::Goal| if arguments.prompt_swap { goal.swapped() } else { goal };
        let mut shown = Ok(());
        report.add(run.run(arguments.seed + episode, ask, |_, moment| {
            if let Some(view) = &mut view {
                shown = view.show(moment);
            }
        })?);
        shown?;
    }
    if arguments.json {
        println!("{:#}", report.json(settings(arguments)));
    } else {
        println!("{}", report.text());
    }
    Ok(())
}

/// Returns the runtime's defaults at the task's rate, with what the arguments say.
fn config(arguments: &Arguments, rtc: Option<usize>) -> RuntimeConfig {
    let mut config = RuntimeConfig::default();
    config.timeline.control_period = PERIOD;
    config.timeline.action_period = PERIOD;
    config.rtc = rtc.map(|execution_horizon| RtcConfig { execution_horizon, ..RtcConfig::default() });
    config.timeline.splice = arguments.splice.unwrap_or(config.timeline.splice);
    config.replan = arguments.replan.map_or(config.replan, |ticks| Replan::Period(PERIOD * ticks));
    config
}

fn settings(arguments: &Arguments) -> serde_json::Value {
    json!({
        "policy": if arguments.expert { "expert" } else { &arguments.bundle },
        "time": if arguments.realtime { "real" } else { "virtual" },
        "seed": arguments.seed,
        "delay_ms": arguments.delay.as_secs_f64() * 1e3,
        "splice": config(arguments, None).timeline.splice,
        "rtc": arguments.rtc,
        "replan": arguments.replan,
        "steps": arguments.steps,
        "prompt_swap": arguments.prompt_swap,
    })
}
