//! `pi0-edge generate`: man pages and completions, from the one description of the command line.

use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;
use pi0_edge::Result;

use crate::output::cannot;

/// Arguments of `generate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The directory of data that does not depend on the machine, such as /usr/share
    directory: PathBuf,
}

/// The places of completions below that directory.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Writes the files for `command` where shells and `man` look for them.
pub fn run(args: &Args, mut command: Command) -> Result<()> {
    let made = |place: &str| -> Result<PathBuf> {
        let directory = args.directory.join(place);
        std::fs::create_dir_all(&directory).map_err(cannot("make", &directory))?;
        Ok(directory)
    };
    let pages = made("man/man1")?;
    clap_mangen::generate_to(without_help(command.clone()), &pages).map_err(cannot("write to", &pages))?;
    for (shell, place) in COMPLETIONS {
        let directory = made(place)?;
        let file = clap_complete::generate_to(shell, &mut command, "pi0-edge", &directory)
            .map_err(cannot("write to", &directory))?;
        if shell == Shell::Bash {
            // Bash looks for a program's own name.
            let named = directory.join("pi0-edge");
            std::fs::rename(&file, &named).map_err(cannot("write", &named))?;
        }
    }
    Ok(())
}

/// Leaves out the verb `help`, which would have a page for each page.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Calls `see` with the page's name and each command.
    fn walk(page: &str, command: &Command, see: &mut dyn FnMut(&str, &Command)) {
        see(page, command);
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
        shown.for_each(|verb| walk(&format!("{page}-{}", verb.get_name()), verb, see));
    }

    #[test]
    fn pages_and_completions_name_every_verb_and_option() {
        let share = tempfile::tempdir().unwrap();
        run(&Args { directory: share.path().into() }, crate::Cli::command()).unwrap();
        let read = |name: &str| std::fs::read_to_string(share.path().join(name)).expect(name);
        let shells = [
            ("bash-completion/completions/pi0-edge", "--"),
            ("zsh/site-functions/_pi0-edge", "--"),
            ("fish/vendor_completions.d/pi0-edge.fish", "-l "),
        ]
        .map(|(file, dashes)| (file, dashes, read(file)));
        let (mut verbs, mut options) = (0, 0);
        walk("pi0-edge", &crate::Cli::command(), &mut |page, command| {
            let text = read(&format!("man/man1/{page}.1")).replace("\\-", "-");
            let name = page.replace('-', " ");
            verbs += 1;
            for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
                let Some(long) = option.get_long() else { continue };
                options += 1;
                assert!(text.contains(&format!("--{long}")), "{page}.1 does not name --{long}");
                for (file, dashes, words) in &shells {
                    assert!(words.contains(&format!("{dashes}{long}")), "{file} lacks --{long} of {name}");
                }
            }
            for (file, _, words) in &shells {
                assert!(words.contains(command.get_name()), "{file} does not name {name}");
            }
        });
        assert!(verbs > 14 && options > 100, "{verbs} verbs, {options} options");
        let pages = std::fs::read_dir(share.path().join("man/man1")).unwrap().count();
        assert_eq!(pages, verbs, "a page for each verb, and none for help");

        // What bash itself makes of it.
        let script = "source \"$1\"; COMP_WORDS=(pi0-edge bench con); COMP_CWORD=2; COMPREPLY=()\n\
                      complete=$(complete -p pi0-edge); complete=${complete#*-F }; ${complete%% *} pi0-edge con bench; echo \"${COMPREPLY[@]}\"";
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", script, "bash"]).arg(share.path().join(shells[0].0));
        assert_eq!(String::from_utf8(bash.output().unwrap().stdout).unwrap().trim(), "control");
    }
}
