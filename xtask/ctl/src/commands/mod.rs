// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::control::DEFAULT_DEADLINE;
use crate::drain::AtDeadline;
use crate::journal::Origin;
use crate::live;
use crate::problem::{Exit, Problem, Result};
use crate::quantity::parse_duration;
use crate::upgrade::Terms;

mod abandon;
mod adopt;
mod apply;
mod boot;
mod commit;
mod events;
mod generate;
mod history;
mod list;
mod load;
mod metrics;
mod output;
mod package;
mod plan;
mod policy;
mod recorded;
mod recover;
mod report;
mod rollback;
mod status;
mod unload;
mod upgrade;
mod verify;
mod volume;
mod whole_file;

use output::Output;

/// Drives Atom on this machine: payloads are replaced while their disks stay in use.
///
/// Exit codes: 0 done; 1 failed and undone, what served before serves now; 2 wrong usage; 3 refused
/// before anything changed; 4 needs attention, I/O is held.
#[derive(Debug, Parser)]
#[command(name = "atomctl", version, max_term_width = 100)]
struct Cli {
    /// Print one JSON document.
    #[arg(long, global = true)]
    json: bool,
    /// Look for payloads in this folder instead of the standard ones. Can be given several times.
    #[arg(long = "dir", value_name = "DIR", global = true)]
    folders: Vec<PathBuf>,
    /// On whose behalf, for the journal.
    #[arg(long, value_enum, default_value_t, global = true, hide = true)]
    origin: Origin,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what runs.
    Status,
    /// List the payloads: live, parked, loaded and installed.
    List,
    /// Insert a payload; the first one also becomes live.
    Load(load::Args),
    /// Show what an upgrade would do, with every check; nothing is changed.
    Plan(upgrade::Args),
    /// Replace the live payload.
    Upgrade(upgrade::Args),
    /// Switch back to the payload that was live before.
    Rollback(rollback::Args),
    /// End the soak of the live payload: it stays.
    Commit(commit::Args),
    /// Finish or undo what a tool has left when it died.
    Recover(recover::Args),
    /// Let the live payload give the devices to Atom, which then holds I/O.
    Abandon(abandon::Args),
    /// Let a loaded payload take over what Atom holds.
    Adopt(adopt::Args),
    /// Remove a payload that is not live.
    Unload(unload::Args),
    /// Create, list, show, resize and destroy volumes.
    Volume(volume::Args),
    /// Make the volumes those of a file: shows a plan, then carries it out.
    Apply(apply::Args),
    /// Check that what runs is what is installed.
    Verify(verify::Args),
    /// Show what was attempted on this machine, and what became of it.
    History(history::Args),
    /// Make a page about an attempt, with its phases and what the devices did drawn along the time.
    Report(report::Args),
    /// Show what a monitoring system wants to know, in the text format of Prometheus.
    Metrics(metrics::Args),
    /// Tell what happens: handoffs, soaks, payloads that come, go or die.
    Events(events::Args),
    /// Show or change what Atom does by itself.
    Policy(policy::Args),
    /// Load Atom and the payload that was committed last; the units of a node call it.
    #[command(hide = true)]
    Boot(boot::Args),
    /// Print the script that completes the command line of a shell.
    #[command(hide = true)]
    Completions(generate::Completions),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(generate::Man),
    /// What the scripts of packages call.
    #[command(hide = true)]
    Package(package::Args),
}

impl Verb {
    /// Whether it may change which payload serves.
    fn drives(&self) -> bool {
        match self {
            Self::Load(_)
            | Self::Upgrade(_)
            | Self::Rollback(_)
            | Self::Commit(_)
            | Self::Recover(_)
            | Self::Adopt(_) => true,
            Self::Package(args) => package::drives(args),
            Self::Boot(args) => boot::drives(args),
            _ => false,
        }
    }
}

/// The drain's deadline, as an option.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Deadline {
    /// How long requests may take to end, such as 500ms or 5s; then everything is undone.
    #[arg(long = "deadline", value_name = "TIME", value_parser = parse_duration)]
    time: Option<Duration>,
}

impl Deadline {
    fn get(self) -> Duration {
        self.time.unwrap_or(DEFAULT_DEADLINE)
    }
}

/// How the live payload gives up its requests, as options.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Drained {
    #[command(flatten)]
    deadline: Deadline,
    /// What happens at the deadline: abort (everything is undone), reissue (the next payload gets the
    /// requests), fail, or with --forsake leave (nobody ever ends them). Abort if not given; an upgrade away from a dead
    /// payload reissues.
    #[arg(long, value_name = "POLICY", value_parser = AtDeadline::parse)]
    at_deadline: Option<AtDeadline>,
    /// Do not ask the live payload for anything: its last checkpoint stands for its state. For one that
    /// hangs; implied for a dead one.
    #[arg(long)]
    forsake: bool,
}

impl Drained {
    fn terms(self) -> Terms {
        Terms { at_deadline: self.at_deadline, forsake: self.forsake, soak: None }
    }
}

/// Runs the command line `arguments`, the program's name first, and tells how the process exits.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, &arguments),
    };
    let output = Output::new(cli.json);
    #[cfg(feature = "failpoints")]
    match crate::failpoint::prepare() {
        Ok(false) => {}
        Ok(true) => return Exit::Done,
        Err(problem) => {
            output.fail(&problem);
            return problem.exit;
        }
    }
    let drives = cli.verb.drives();
    match run(cli, &output) {
        Ok(exit) => {
            if drives {
                remember(&output);
            }
            exit
        }
        Err(problem) => {
            output.fail(&problem);
            problem.exit
        }
    }
}

/// Writes down what a boot is to load. What was done is done when that does not succeed.
fn remember(output: &Output) {
    if let Err(error) = live::remember() {
        output.note(&format!("what serves is not written down for the next boot: {error}"));
    }
}

fn run(cli: Cli, output: &Output) -> Result<Exit> {
    match cli.verb {
        Verb::Status => status::run(output),
        Verb::List => list::run(output, cli.folders),
        Verb::Load(args) => load::run(output, &args, cli.origin),
        Verb::Plan(args) => plan::run(output, args, cli.folders),
        Verb::Upgrade(args) => upgrade::run(output, args, cli.folders, cli.origin),
        Verb::Rollback(args) => rollback::run(output, &args, cli.origin),
        Verb::Commit(args) => commit::run(output, &args, cli.origin),
        Verb::Recover(args) => recover::run(output, &args, cli.folders, cli.origin),
        Verb::Abandon(args) => abandon::run(output, &args, cli.origin),
        Verb::Adopt(args) => adopt::run(output, &args, cli.origin),
        Verb::Unload(args) => unload::run(output, &args, cli.origin),
        Verb::Volume(args) => volume::run(output, &args),
        Verb::Apply(args) => apply::run(output, &args),
        Verb::Verify(args) => verify::run(output, &args, cli.folders),
        Verb::History(args) => history::run(output, &args),
        Verb::Report(args) => report::run(output, &args),
        Verb::Metrics(args) => metrics::run(output, &args, cli.folders),
        Verb::Events(args) => events::run(output, &args),
        Verb::Policy(args) => policy::run(output, &args),
        Verb::Completions(args) => generate::completions(output, &args),
        Verb::Man(args) => generate::man(&args),
        Verb::Boot(args) => boot::run(output, &args),
        Verb::Package(args) => package::run(output, args),
    }
}

fn not_understood(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if !error.use_stderr() {
        // Help and version were asked for.
        let _ = error.print();
        return Exit::Done;
    }
    if arguments.iter().any(|argument| argument == "--json") {
        Output::new(true).fail(&Problem::usage(
            "The command line was not understood",
            error.to_string().trim_end(),
            "read atomctl --help",
        ));
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> std::result::Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_is_understood() {
        for line in [
            "atomctl status",
            "atomctl --json list",
            "atomctl list --json --dir /a --dir /b",
            "atomctl load a.ko",
            "atomctl upgrade a.ko --deadline 500ms --keep-parked",
            "atomctl upgrade a.ko --cold --old b.ko",
            "atomctl upgrade a.ko --at-deadline reissue --forsake",
            "atomctl upgrade a.ko --cold --at-deadline fail",
            "atomctl upgrade a.ko --soak 30s --stall 5s --max-errors 3 --no-canary --keep-parked",
            "atomctl upgrade a.ko --soak 0s",
            "atomctl upgrade 2.1.0 --origin fleet",
            "atomctl plan 2.1.0 --cold --json",
            "atomctl metrics --out /a.prom",
            "atomctl upgrade 2.1.0 --trace",
            "atomctl report --attempt 7 --out /a.html",
            "atomctl --origin package rollback",
            "atomctl rollback --at-deadline reissue",
            "atomctl abandon --forsake",
            "atomctl commit --unload",
            "atomctl recover",
            "atomctl recover --finish --plan",
            "atomctl recover --undo --file a.ko --force --deadline 1s",
            "atomctl events --follow --json",
            "atomctl policy",
            "atomctl policy --hold --soak 1m --stall 5s --back-policy reissue --back-deadline 1s",
            "atomctl policy --fail-after 30s",
            "atomctl policy --fallback payload_1_0_0 --after 10s",
            "atomctl rollback",
            "atomctl rollback 1.0.0 --deadline 1s",
            "atomctl abandon --deadline 5s",
            "atomctl abandon --schema 1",
            "atomctl adopt",
            "atomctl adopt 1.0.0",
            "atomctl unload 1.0.0",
            "atomctl volume create db --kind ram --size 64M --block-size 4096 --hw-queues 2",
            "atomctl volume create db --target bdev:/dev/vdb --block-size 512",
            "atomctl volume create db --layout stripe --chunk 128K --target ram:1G --target nbd://h/e --size 2G",
            "atomctl volume create db --target nbd://h/e --on-failure error --deadline 60s --answer-timeout 30s \
             --retry-max 5s --retries 3 --connections 4 --keepalive 30s",
            "atomctl volume list",
            "atomctl volume show db --json",
            "atomctl volume resize db",
            "atomctl volume resize db --size 2G",
            "atomctl volume resize db --add-target bdev:/dev/vdc --add-target nbd://h/e --deadline 1m",
            "atomctl volume reconnect db",
            "atomctl volume reconnect db --target 2",
            "atomctl volume destroy db",
            "atomctl volume name /dev/atom0",
            "atomctl volume udev atom0",
            "atomctl apply volumes.toml",
            "atomctl apply volumes.toml --plan --prune --json",
            "atomctl apply volumes.toml --only local",
            "atomctl completions bash",
            "atomctl man /a",
            "atomctl boot",
            "atomctl boot --stop --only network",
            "atomctl boot --needs-network",
            "atomctl package coming 2.1.0 --kernel 7.2.12 --transaction 7",
            "atomctl package installed 2.1.0",
            "atomctl package installed 2.1.0 --named",
            "atomctl package removing 2.1.0 --replaced",
            "atomctl verify",
            "atomctl history",
            "atomctl history --last 5",
            "atomctl history --attempt 7",
            "atomctl history --atom",
        ] {
            assert!(parsed(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for line in [
            "atomctl",
            "atomctl upgrade",
            "atomctl upgrade a.ko --old b.ko",
            "atomctl upgrade a.ko --cold --keep-parked",
            "atomctl upgrade a.ko --deadline 5",
            "atomctl upgrade a.ko --at-deadline hope",
            "atomctl upgrade 2.1.0 --origin nobody",
            "atomctl upgrade a.ko --cold --soak 30s",
            "atomctl upgrade a.ko --forsake --soak 30s",
            "atomctl upgrade a.ko --stall 5s",
            "atomctl recover --finish --undo",
            "atomctl policy --hold --fail-after 30s",
            "atomctl policy --fallback payload_1_0_0",
            "atomctl policy --after 10s",
            "atomctl volume create db --kind tape --size 64M",
            "atomctl volume create db --kind ram --size much",
            "atomctl volume create db",
            "atomctl volume create db --kind ram",
            "atomctl volume create db --kind ram --size 64M --target ram:64M",
            "atomctl volume create db --kind ram --size 64M --layout linear",
            "atomctl volume create db --target tape:/dev/st0",
            "atomctl volume create db --target nbd://h/e --connections 9",
            "atomctl volume create db --target nbd://h/e --retry-max 1ms",
            "atomctl volume create db --target nbd://h/e --on-failure hope",
            "atomctl volume create db --layout mirror --target ram:64M",
            "atomctl volume reconnect db --target 0",
            "atomctl apply",
            "atomctl apply volumes.toml --only local --prune",
            "atomctl apply volumes.toml --only both",
            "atomctl boot --only local",
            "atomctl package",
            "atomctl package installed",
            "atomctl explode",
        ] {
            let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            let error = parsed(line).unwrap_err();
            assert!(error.use_stderr() || line == "atomctl", "{line}");
            assert_eq!(not_understood(&error, &arguments), Exit::Usage, "{line}");
        }
    }
}
