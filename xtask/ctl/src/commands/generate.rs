// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl completions` and `atomctl man`: what packages bring beside the program.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::Output;
use super::Cli;
use crate::problem::{Exit, Problem, Result};

const NAME: &str = "atomctl";

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The folder in which the pages are written; it is made when it is not there.
    folder: PathBuf,
}

pub(super) fn completions(output: &Output, args: &Completions) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    output.text(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

pub(super) fn man(args: &Man) -> Result<Exit> {
    let written = std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.folder));
    written.map(|()| Exit::Done).map_err(|error| {
        Problem::undone(
            format!("The pages were not written to {}", args.folder.display()),
            error.to_string(),
            "name a folder that can be written to",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["upgrade", "history", "keep-parked"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn every_verb_for_people_has_a_page() {
        let folder = std::env::temp_dir().join(format!("atomctl-man-{}", std::process::id()));
        man(&Man { folder: folder.clone() }).unwrap();
        let has = |name: &str| folder.join(name).exists();
        assert!(has("atomctl.1"));
        for verb in Cli::command().get_subcommands() {
            let page = format!("atomctl-{}.1", verb.get_name());
            assert_eq!(has(&page), !verb.is_hide_set(), "{page}");
        }
        let page = std::fs::read_to_string(folder.join("atomctl-upgrade.1")).unwrap();
        assert!(page.contains("\\-\\-keep\\-parked"), "{page}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
