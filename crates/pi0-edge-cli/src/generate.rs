//! `pi0-edge generate`: man pages and completions, from the one description of the command line.

use std::path::{Path, PathBuf};

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

/// The completions' files below that directory.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/pi0-edge"),
    (Shell::Zsh, "zsh/site-functions/_pi0-edge"),
    (Shell::Fish, "fish/vendor_completions.d/pi0-edge.fish"),
];

/// Writes the files for `command` where shells and `man` look for them.
pub fn run(args: &Args, mut command: Command) -> Result<()> {
    let directory = |path: &Path| std::fs::create_dir_all(path).map_err(cannot("make", path));
    let pages = args.directory.join("man/man1");
    directory(&pages)?;
    clap_mangen::generate_to(without_help(command.clone()), &pages).map_err(cannot("write to", &pages))?;
    for (shell, file) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "pi0-edge", &mut text);
        // For bash, clap_complete 4.6 takes the hyphen in the program's name for one before a verb, in every other place.
        let text = String::from_utf8_lossy(&text).replace("pi0__subcmd__edge", "pi0__edge");
        let path = args.directory.join(file);
        directory(path.parent().unwrap_or(&args.directory))?;
        std::fs::write(&path, text).map_err(cannot("write", &path))?;
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
