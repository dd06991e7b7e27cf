//! `pi0-edge bench BUNDLE` and `pi0-edge bench control BUNDLE`: one verb, two things to measure.

use clap::{ArgMatches, Command, FromArgMatches};
use pi0_edge::Result;

use crate::{bench, control};

/// Arguments of `bench`. The derive has no form for "a command, or the arguments of none".
#[derive(Debug)]
pub enum Args {
    Stages(bench::Args),
    Control(control::Args),
}

const CONTROL: &str = "control";

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let about = "Measure what reading the action costs a control loop, while the policy computes";
        bench::Args::augment_args(command)
            .subcommand(control::Args::augment_args(Command::new(CONTROL)).about(about))
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
    }
}
