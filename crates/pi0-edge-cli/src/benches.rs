//! `pi0-edge bench BUNDLE`, `bench control BUNDLE` and `bench device BUNDLE`: one verb, three things to measure.

use clap::{ArgMatches, Command, FromArgMatches};
use pi0_edge::Result;

use crate::{bench, control, device};

/// Arguments of `bench`. The derive has no form for "a command, or the arguments of none".
#[derive(Debug)]
pub enum Args {
    Stages(bench::Args),
    Control(control::Args),
    Device(device::Args),
}

const CONTROL: &str = "control";
const DEVICE: &str = "device";

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let control = "Measure what reading the action costs a control loop, while the policy computes";
        let device = "Measure all there is to know on the robot's own computer, and write a report";
        bench::Args::augment_args(command)
            .subcommand(control::Args::augment_args(Command::new(CONTROL)).about(control))
            .subcommand(device::Args::augment_args(Command::new(DEVICE)).about(device))
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
            .disable_help_subcommand(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((CONTROL, matches)) => control::Args::from_arg_matches(matches).map(Args::Control),
            Some((DEVICE, matches)) => device::Args::from_arg_matches(matches).map(Args::Device),
            _ => bench::Args::from_arg_matches(matches).map(Args::Stages),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match args {
        Args::Stages(args) => bench::run(args),
        Args::Control(args) => control::run(args),
        Args::Device(args) => device::run(args),
    }
}
