//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pi0_edge::runtime::Splice;

use crate::closed_loop::Result;

/// What is asked for; `main.rs` says what each means.
pub struct Arguments {
    pub bundle: String,
    pub expert: bool,
    pub realtime: bool,
    pub episodes: u64,
    pub seed: u64,
    pub delay: Duration,
    pub rtc: Option<usize>,
    pub splice: Option<Splice>,
    pub replan: Option<u32>,
    pub steps: Option<usize>,
    pub prompt_swap: bool,
    pub picture: Option<PathBuf>,
    pub json: bool,
    pub demonstrations: Option<PathBuf>,
    pub frames: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Arguments {
            bundle: "models/pi0-sort".into(),
            expert: false,
            realtime: false,
            episodes: 100,
            seed: 0,
            delay: Duration::ZERO,
            rtc: None,
            splice: None,
            replan: None,
            steps: None,
            prompt_swap: false,
            picture: None,
            json: false,
            demonstrations: None,
            frames: 40_000,
        }
    }
}

impl Arguments {
    /// # Errors
    /// An argument that is not known, or a value that makes no sense.
    pub fn parse(mut given: impl Iterator<Item = String>) -> Result<Self> {
        let mut all = Arguments::default();
        while let Some(name) = given.next() {
            let mut value = || given.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--bundle" => all.bundle = value()?,
                "--expert" => all.expert = true,
                "--realtime" => all.realtime = true,
                "--episodes" => all.episodes = number(&name, &value()?)?,
                "--seed" => all.seed = number(&name, &value()?)?,
                "--delay" => all.delay = Duration::from_millis(number(&name, &value()?)?),
                "--rtc" => all.rtc = Some(number(&name, &value()?)?),
                "--splice" => all.splice = Some(value()?.parse()?),
                "--replan" => all.replan = Some(number(&name, &value()?)?),
                "--steps" => all.steps = Some(number(&name, &value()?)?),
                "--prompt-swap" => all.prompt_swap = true,
                "--picture" => all.picture = Some(value()?.into()),
                "--format" => {
                    all.json = match value()?.as_str() {
                        "json" => true,
                        "text" => false,
                        other => return Err(format!("--format {other}: use text or json").into()),
                    }
                }
                "--demonstrations" => all.demonstrations = Some(value()?.into()),
                "--frames" => all.frames = number(&name, &value()?)?,
                _ => {
                    return Err(format!("no argument called {name}; examples/sort/main.rs lists them").into());
                }
            }
        }
        if all.episodes == 0 {
            return Err("--episodes 0: use at least 1".into());
        }
        Ok(all)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| format!("{name} {value}: not a number that can be used here").into())
}
