// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl boot`: what the units of a node call when it starts and when it stops.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use atom_abi::control::payload_state;

use super::apply::{self, Scope};
use super::load;
use super::output::Output;
use crate::boot::candidates;
use crate::configuration::Configuration;
use crate::control::{Control, DEFAULT_DEADLINE};
use crate::journal::Origin;
use crate::module_file::{check, ModuleFile};
use crate::node::{kernel_release, Local};
use crate::places::Places;
use crate::problem::{Exit, Problem, Result};
use crate::report::{BootDocument, Mode, StopDocument};
use crate::upgrade::{self, Site, Target, Terms};
use crate::volume::machine;
use crate::volume::{self, client, Commands};
use crate::{kmod, live};

const ATOM: &str = "atom";
/// The volumes of a node.
const VOLUMES: &str = "/etc/atom/volumes.toml";
/// How long closing the volumes may take together. Less than what the units allow.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Close the volumes that nobody uses instead.
    #[arg(long)]
    stop: bool,
    /// With --stop: only those over local targets, or only those over a network.
    #[arg(long, value_enum, value_name = "WHICH", requires = "stop")]
    only: Option<Scope>,
    /// Only tell, by exit code 0 or 1, whether a volume of this node is over a network, for whoever would wait for it.
    #[arg(long, conflicts_with = "stop")]
    needs_network: bool,
}

/// Whether it may change which payload serves.
pub(super) fn drives(args: &Args) -> bool {
    !args.stop && !args.needs_network
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    if args.needs_network {
        needs_network(Path::new(VOLUMES))
    } else if args.stop {
        stop(output, args.only)
    } else {
        start(output)
    }
}

/// Whether a volume of the file is over a server. Without a file there is none. Asks nobody.
fn needs_network(file: &Path) -> Result<Exit> {
    if !file.exists() {
        return Ok(Exit::Undone);
    }
    Ok(if apply::has_any(file, Scope::Network)? { Exit::Done } else { Exit::Undone })
}

/// Loads Atom and a payload, as far as they are not there.
fn start(output: &Output) -> Result<Exit> {
    let release = kernel_release()?;
    let places = Places::standard(&release);
    load_atom(&places)?;
    let node = Local::open()?;
    let site = Site::survey(&node)?;
    let mut warnings = Vec::new();
    let configuration = Configuration::read().unwrap_or_else(|problem| {
        warnings.push(problem.in_one_line());
        Configuration::default()
    });
    let committed = live::committed();
    let wanted = configuration.boot_payload.as_deref().or(committed.as_deref());
    let document = |live: Option<String>, was_live, warnings| BootDocument {
        schema: BootDocument::SCHEMA.to_owned(),
        live,
        was_live,
        warnings,
    };
    let document = match site.live() {
        Some(serving) => {
            let version = serving.version.as_str().to_owned();
            let settled = site.status.parked == 0 && serving.state == payload_state::LIVE;
            let live = match wanted.filter(|wanted| settled && *wanted != version) {
                Some(wanted) => settle(&node, &places, &version, wanted, &mut warnings),
                None => version,
            };
            document(Some(live), true, warnings)
        }
        None if site.status.held_ns != 0 => {
            return Err(Problem::attention(
                "No payload was loaded",
                "I/O is held: an upgrade was not finished",
                "read atomctl status, then atomctl recover",
            ))
        }
        None => {
            let installed: Vec<String> = places
                .files()
                .iter()
                .filter_map(|path| ModuleFile::read(path).ok())
                .filter(|file| check(file, &release, &site.status, None).is_ok())
                .map(|file| file.version().to_owned())
                .collect();
            let order =
                candidates(configuration.boot_payload.as_deref(), committed.as_deref(), &installed);
            if order.is_empty() {
                warnings.push("no payload is installed for this kernel".to_owned());
            }
            let live = first_that_serves(output, &node, &places, &order, &mut warnings)?;
            document(live, false, warnings)
        }
    };
    output.show(&document, |document, _| {
        let mut text: String =
            document.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        text.push_str(&match &document.live {
            Some(version) => format!("payload {version} is live\n"),
            None => "no payload is live\n".to_owned(),
        });
        text
    })?;
    Ok(Exit::Done)
}

/// Inserts Atom unless it is there.
fn load_atom(places: &Places) -> Result<()> {
    if Path::new("/sys/module").join(ATOM).exists() {
        return Ok(());
    }
    let file = places.read(ATOM)?;
    match kmod::insert(&file.bytes, "") {
        Err(problem) if kmod::find(ATOM)?.is_none() => Err(problem),
        // It is there, whoever was faster.
        _ => Ok(()),
    }
}

/// An initramfs may have brought another payload than the one that was committed last: the node upgrades to that one. Returns
/// what serves.
fn settle(
    node: &Local,
    places: &Places,
    serving: &str,
    wanted: &str,
    warnings: &mut Vec<String>,
) -> String {
    let options = upgrade::Options {
        mode: Mode::Warm,
        deadline: DEFAULT_DEADLINE,
        keep_parked: false,
        old: None,
        places: places.clone(),
    };
    let target = Target::Version(wanted.to_owned());
    let terms = Terms::default();
    let why = match upgrade::run_recorded(node, &target, &options, &terms, Origin::Boot) {
        Ok(report) if report.exit() == Exit::Done => return wanted.to_owned(),
        Ok(report) => report.reason.unwrap_or_default(),
        Err(problem) => problem.in_one_line(),
    };
    warnings.push(format!("payload {wanted} was not upgraded to: {why}"));
    serving.to_owned()
}

/// Loads the first of these versions that takes over. An error when none does and there are some.
fn first_that_serves(
    output: &Output,
    node: &Local,
    places: &Places,
    order: &[String],
    warnings: &mut Vec<String>,
) -> Result<Option<String>> {
    let mut last = None;
    for version in order {
        let loaded = places
            .read_version(version)
            .map_err(Problem::from)
            .and_then(|file| load::bring(output, node, &file, Origin::Boot));
        match loaded {
            Ok(_) => return Ok(Some(version.clone())),
            Err(problem) => {
                warnings.push(format!("payload {version}: {}", problem.in_one_line()));
                last = Some(problem);
            }
        }
    }
    last.map_or(Ok(None), Err)
}

/// What the thread tells that closes volumes.
enum Told {
    Closed(String),
    InUse(BTreeSet<String>),
    Failed(Problem),
}

/// Closes the volumes that nobody uses. A server that does not answer, or a payload that does not, holds up nobody for longer
/// than [`LIMIT`].
fn stop(output: &Output, only: Option<Scope>) -> Result<Exit> {
    let mut document = StopDocument {
        schema: StopDocument::SCHEMA.to_owned(),
        closed: Vec::new(),
        in_use: Vec::new(),
        warnings: Vec::new(),
    };
    let (tell, told) = channel();
    // Nobody waits for it beyond the limit: the end of the process ends it.
    std::thread::spawn(move || {
        if let Err(problem) = close_unused(only, &tell) {
            // Who does not listen any more has told of the limit.
            let _ = tell.send(Told::Failed(problem));
        }
    });
    let until = Instant::now() + LIMIT;
    let mut exit = Exit::Done;
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Told::Closed(name)) => document.closed.push(name),
            Ok(Told::InUse(names)) => document.in_use = names.into_iter().collect(),
            Ok(Told::Failed(problem)) => {
                exit = Exit::Undone;
                document.warnings.push(problem.in_one_line());
            }
            Err(RecvTimeoutError::Timeout) => {
                exit = Exit::Undone;
                let seconds = LIMIT.as_secs();
                document.warnings.push(format!("what is left was not closed within {seconds} s"));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    output.show(&document, |document, _| {
        let mut text = String::new();
        for (what, names) in [("closed", &document.closed), ("in use", &document.in_use)] {
            if !names.is_empty() {
                text.push_str(&format!("{what}: {}\n", names.join(", ")));
            }
        }
        for warning in &document.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text
    })?;
    Ok(exit)
}

/// Closes what nobody uses until there is nothing more: a volume may be the target of another one.
fn close_unused(only: Option<Scope>, tell: &Sender<Told>) -> Result<()> {
    let Ok(control) = Control::open() else { return Ok(()) };
    if control.live().is_err() {
        return Ok(());
    }
    let mut failed = BTreeSet::new();
    loop {
        let present: Vec<_> = client::present(&control, &machine::Local)?
            .into_iter()
            .filter(|volume| {
                only.is_none_or(|scope| scope.has(volume.targets.iter().map(|t| &t.at)))
            })
            .collect();
        let unused: Vec<_> = present
            .iter()
            .filter(|volume| volume.opens == 0 && !failed.contains(volume.name.as_str()))
            .collect();
        if unused.is_empty() {
            let used = present.iter().filter(|volume| volume.opens != 0);
            let names = used.map(|volume| volume.name.as_str().to_owned()).collect();
            let _ = tell.send(Told::InUse(names));
            return Ok(());
        }
        for one in unused {
            let name = one.name.as_str().to_owned();
            let told = match volume::destroy(&control, &machine::Local, one.name) {
                Ok(()) => Told::Closed(name),
                Err(problem) => {
                    failed.insert(name);
                    Told::Failed(problem)
                }
            };
            let _ = tell.send(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_node_needs_the_network_when_one_of_its_volumes_is_over_a_server() {
        let path = std::env::temp_dir().join(format!("atomctl-needs-{}.toml", std::process::id()));
        assert_eq!(needs_network(&path).unwrap(), Exit::Undone);
        // What a word of a comment is does not matter.
        let local =
            "# instead of nbd://store/db\n[[volume]]\nname = \"nbd\"\ntargets = [\"ram:1M\"]\n";
        fs::write(&path, local).unwrap();
        assert_eq!(needs_network(&path).unwrap(), Exit::Undone);
        let far = "[[volume]]\nname = \"far\"\ntargets = [\"nbd://store/db\"]\n";
        fs::write(&path, format!("{local}{far}")).unwrap();
        assert_eq!(needs_network(&path).unwrap(), Exit::Done);
        fs::write(&path, "[[volume]]\nname = 7\n").unwrap();
        assert_eq!(needs_network(&path).unwrap_err().exit, Exit::Usage);
        fs::remove_file(&path).unwrap();
    }
}
