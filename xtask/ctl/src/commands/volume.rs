// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl volume`

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use atom_abi::text::Text;
use atom_payload::spec::{Layout, OnFailure};
use clap::Subcommand;

use super::output::Output;
use crate::control::Control;
use crate::problem::{Exit, Problem, Result};
use crate::quantity::{parse_bytes, parse_duration};
use crate::report::{NameDocument, VolumeDocument, VolumeEntry, Volumes};
use crate::text;
use crate::volume::client::{self, Use};
use crate::volume::machine::{Local, Machine};
use crate::volume::plan::{plan, Action, Circumstances};
use crate::volume::target::{self, Agreed, At, Target};
use crate::volume::wanted::{layout, Fault, Wanted};
use crate::volume::{self, apply, device, file, Commands, Create, Kind};

/// How long the name of a device is waited for. While I/O is held or another command is carried out, the
/// payload does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a volume and its device.
    Create(CreateArgs),
    /// List the volumes.
    List,
    /// Show all that is known of a volume.
    Show {
        /// Its name.
        name: String,
    },
    /// Make a volume larger while it is in use. Without an option it takes what its targets have.
    Resize(ResizeArgs),
    /// Have the targets of a volume that are on a network connect at once.
    Reconnect {
        /// Its name.
        name: String,
        /// Only this target, from 1.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        target: Option<u32>,
    },
    /// Remove a volume, its device and its data in memory.
    Destroy {
        /// Its name.
        name: String,
    },
    /// Print the name of the volume of a device, such as /dev/atom0.
    Name {
        /// The device or one of its partitions.
        device: String,
    },
    /// Print the name of the volume of a device as a property for udev.
    Udev {
        /// The kernel's name of the device, such as atom0.
        device: String,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Its name.
    name: String,
    /// Shorthand for one target of this kind: null or ram.
    #[arg(long, value_parser = parse_kind, requires = "size", conflicts_with_all = ["layout", "chunk", "targets"])]
    kind: Option<Kind>,
    /// How its sectors lie on the targets: linear or stripe.
    #[arg(long, default_value = "linear", value_parser = ["linear", "stripe"])]
    layout: String,
    /// Bytes on one target before the next one has its turn, for a stripe: 64K if not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    chunk: Option<u64>,
    /// What it is made of: null:SIZE, ram:SIZE, bdev:/dev/NAME, nbd://HOST[:PORT]/EXPORT or
    /// nbd+unix:///EXPORT?socket=PATH. Can be given several times.
    #[arg(long = "target", value_name = "TARGET", value_parser = Target::parse, required_unless_present = "kind")]
    targets: Vec<Target>,
    /// Its size, such as 64M: what the targets have if not given.
    #[arg(long, value_parser = parse_bytes)]
    size: Option<u64>,
    /// Smallest unit of addressing, in bytes: 512 to 4096. If not given, that of the targets, and 4096 for those
    /// in memory.
    #[arg(long)]
    block_size: Option<u32>,
    /// Hardware queues; 0: one for each CPU.
    #[arg(long, default_value_t = 0)]
    hw_queues: u16,
    /// Requests per hardware queue; 0: as many as Atom sees fit.
    #[arg(long, default_value_t = 0)]
    queue_depth: u16,
    /// As many hardware queues again, for polled I/O.
    #[arg(long)]
    polled: bool,
    #[command(flatten)]
    agreement: Agreement,
}

#[derive(Debug, clap::Args)]
struct ResizeArgs {
    /// Its name.
    name: String,
    /// Its new size.
    #[arg(long, value_parser = parse_bytes)]
    size: Option<u64>,
    /// A target to append to a linear volume. Can be given several times.
    #[arg(long = "add-target", value_name = "TARGET", value_parser = Target::parse)]
    targets: Vec<Target>,
    #[command(flatten)]
    agreement: Agreement,
}

/// What is agreed about targets on a network.
#[derive(Debug, clap::Args)]
struct Agreement {
    /// What becomes of requests when a target has failed: hold or error.
    #[arg(long, value_name = "POLICY", value_parser = file::policy)]
    on_failure: Option<OnFailure>,
    /// Time without a connection after which a target has failed: 60s if not given; 0s: never.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| term(text, target::term_ms))]
    deadline: Option<u32>,
    /// Time after which a connection is given up on which nothing happens to the oldest request: 30s if not given; 0s: never.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| term(text, target::term_ms))]
    answer_timeout: Option<u32>,
    /// Longest time between two attempts to connect: 5s if not given.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| term(text, target::retry_ms))]
    retry_max: Option<u32>,
    /// Attempts in a row after which a target has failed and no more are made; 0: no limit.
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Connections to each server that allows several: 1 to 8.
    #[arg(long, value_name = "N", value_parser = parse_connections)]
    connections: Option<u32>,
    /// Time of silence after which a connection is probed: 30s if not given; 0s: never.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| term(text, target::keepalive_s))]
    keepalive: Option<u32>,
}

impl Agreement {
    fn agreed(&self) -> Agreed {
        let mut agreed = Agreed::DEFAULT;
        let terms = &mut agreed.terms;
        terms.on_failure = self.on_failure.unwrap_or(terms.on_failure);
        terms.deadline_ms = self.deadline.unwrap_or(terms.deadline_ms);
        terms.answer_ms = self.answer_timeout.unwrap_or(terms.answer_ms);
        terms.retry_ms = self.retry_max.unwrap_or(terms.retry_ms);
        terms.retries = self.retries.unwrap_or(terms.retries);
        agreed.connections = self.connections.unwrap_or(agreed.connections);
        agreed.keepalive_s = self.keepalive.unwrap_or(agreed.keepalive_s);
        agreed
    }

    fn over(&self, targets: &[Target]) -> Vec<Target> {
        let agreed = self.agreed();
        targets.iter().map(|target| Target { agreed, ..target.clone() }).collect()
    }
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    match &args.verb {
        Verb::Create(args) => create(output, args),
        Verb::List => show_list(output, client::list(&Control::open()?)?),
        Verb::Show { name } => show(output, &Control::open()?, volume::name(name)?),
        Verb::Resize(args) => resize(output, args),
        Verb::Reconnect { name, target } => {
            let (control, name) = (Control::open()?, volume::name(name)?);
            client::reconnect(&control, name, target.and_then(|target| target.checked_sub(1)))?;
            show(output, &control, name)
        }
        Verb::Destroy { name } => {
            let control = Control::open()?;
            volume::destroy(&control, &Local, volume::name(name)?)?;
            show_list(output, client::list(&control)?)
        }
        Verb::Name { device } => {
            let name = name_in_time(device)?;
            let device = device::number(device).map_or_else(String::new, device::path);
            let schema = NameDocument::SCHEMA.to_owned();
            let document = NameDocument { schema, name: name.as_str().to_owned(), device };
            output.show(&document, |document, _| format!("{}\n", document.name))?;
            Ok(Exit::Done)
        }
        Verb::Udev { device } => Ok(udev(device)),
    }
}

fn create(output: &Output, args: &CreateArgs) -> Result<Exit> {
    let name = volume::name(&args.name)?;
    let control = Control::open()?;
    match args.kind {
        Some(kind) => {
            if args.polled {
                client::need_client(&control, format!("Volume {name} was not created"))?;
            }
            let device = volume::create(&control, &args.simple(name, kind))?;
            Local.settle(&args.name, device);
        }
        None => {
            let wanted = args.wanted(name)?;
            let live = control.live()?;
            if !live.has_client && wanted.simple().is_none() {
                client::need_client(&control, format!("Volume {name} was not created"))?;
            }
            let capacity = |index: usize| {
                wanted.targets.get(index).and_then(|target| Local.capacity(&target.at))
            };
            let parts = wanted.parts(capacity).map_err(|fault| cannot_be(name, &fault))?;
            apply::make(&control, &Local, &wanted, &parts)?;
        }
    }
    let mut volumes = client::list(&control)?;
    volumes.retain(|volume| volume.name == args.name);
    if volumes.is_empty() {
        return Err(Problem::undone(
            format!("Volume {name} was created and is not there"),
            "somebody else may have destroyed it",
            "look at atomctl volume list",
        ));
    }
    show_list(output, volumes)
}

impl CreateArgs {
    fn simple(&self, name: Text, kind: Kind) -> Create {
        Create {
            name,
            kind,
            bytes: self.size.unwrap_or(0),
            block_bytes: self.block_size.unwrap_or(volume::wanted::DEFAULT_BLOCK_BYTES),
            hw_queues: self.hw_queues,
            queue_depth: self.queue_depth,
            polled: self.polled,
        }
    }

    fn wanted(&self, name: Text) -> Result<Wanted> {
        let wrong = |fault: Fault| cannot_be(name, &fault);
        let wanted = Wanted {
            name,
            layout: layout(&self.layout, self.chunk).map_err(wrong)?,
            targets: self.agreement.over(&self.targets),
            bytes: self.size,
            block_bytes: self.block_size,
            hw_queues: self.hw_queues,
            queue_depth: self.queue_depth,
            polled: self.polled,
        };
        wanted.check().map_err(wrong)?;
        Ok(wanted)
    }
}

fn resize(output: &Output, args: &ResizeArgs) -> Result<Exit> {
    let (control, name) = (Control::open()?, volume::name(&args.name)?);
    let what = format!("Volume {name} was not resized");
    client::need_client(&control, &*what)?;
    let all = client::present(&control, &Local)?;
    let Some(present) = all.iter().find(|volume| volume.name == name) else {
        return Err(Problem::refused(
            what,
            "there is no such volume",
            "look at atomctl volume list",
        ));
    };
    if args.size.is_none() && args.targets.is_empty() {
        let last = present.targets.len().saturating_sub(1);
        let uses = |index| match present.layout {
            Layout::Linear if index < last => Use::AsBefore,
            _ => Use::All,
        };
        client::resize(&control, &Local, name, uses, &[])?;
        return show(output, &control, name);
    }
    let wanted = present.larger(args.size, args.agreement.over(&args.targets));
    wanted.check().map_err(|fault| cannot_be(name, &fault))?;
    let capacity = |at: &At| Local.capacity(at);
    let live = control.live()?;
    let around = Circumstances {
        payload: &live.version,
        has_client: live.has_client,
        prune: false,
        capacity: &capacity,
    };
    let planned = plan(&[wanted], &all, &around);
    if let Some(Action::Refused(why)) = planned.first().map(|planned| &planned.action) {
        let remedy = "a volume grows at its end only; anything else needs a new volume";
        return Err(Problem::refused(what, why, remedy));
    }
    let (_, problem) = apply::run(&control, &Local, planned.get(..1).unwrap_or_default(), |_| ());
    match problem {
        Some(problem) => Err(problem),
        None => show(output, &control, name),
    }
}

fn show(output: &Output, control: &Control, name: Text) -> Result<Exit> {
    let document: VolumeDocument = client::show(control, name)?;
    output.show(&document, |document, paint| text::volume(document, since_start_us(), paint))?;
    Ok(Exit::Done)
}

fn show_list(output: &Output, volumes: Vec<VolumeEntry>) -> Result<Exit> {
    output.show(&Volumes::new(volumes), text::volumes)?;
    Ok(Exit::Done)
}

/// For udev: on one line what it asks for, or on another why it is not known.
fn udev(device: &str) -> Exit {
    match name_in_time(device) {
        // They would be names of folders.
        Ok(name) if !matches!(name.as_str(), "." | "..") => {
            println!("ATOM_VOLUME={name}");
            Exit::Done
        }
        Ok(name) => {
            eprintln!("atomctl: {device}: {name} cannot be the name of a link");
            Exit::Undone
        }
        Err(problem) => {
            eprintln!("atomctl: {}", problem.in_one_line());
            Exit::Undone
        }
    }
}

/// The name of the volume of a device, if the live payload tells it in time.
fn name_in_time(device: &str) -> Result<Text> {
    let number = device::number(device).ok_or_else(|| {
        Problem::usage(
            format!("{device} has no volume"),
            "it is no device of Atom",
            "give a device such as /dev/atom0",
        )
    })?;
    let (tell, told) = mpsc::channel();
    let late = |why: &str| {
        Problem::undone(
            format!("The volume of {device} is not known now"),
            why,
            "ask again when I/O is not held: atomctl status",
        )
    };
    // A command that waits for its turn cannot be given up; the process can, and it ends with that.
    thread::Builder::new()
        .spawn(move || {
            let found = Control::open().and_then(|control| volume::name_of(&control, number));
            let _ = tell.send(found);
        })
        .map_err(|error| late(&error.to_string()))?;
    let found = told
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(late("the live payload did not answer within 2 s")));
    found.map_err(|problem| problem.with_exit(Exit::Undone))
}

fn cannot_be(name: Text, fault: &Fault) -> Problem {
    Problem::usage(
        format!("There cannot be such a volume {name}"),
        format!("{}: {}", fault.field, fault.why),
        "read atomctl volume create --help",
    )
}

/// Microseconds since the machine has started, suspended or not.
fn since_start_us() -> Option<u64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = uptime.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = hundredths.parse().ok()?;
    seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(hundredths.checked_mul(10_000)?)
}

fn parse_kind(name: &str) -> std::result::Result<Kind, String> {
    volume::kind(name).ok_or_else(|| format!("{name:?} is no kind of volume: use null or ram"))
}

fn parse_connections(text: &str) -> std::result::Result<u32, String> {
    target::connections(text.parse().map_err(|_| format!("{text:?} is no number"))?)
}

fn term(
    text: &str,
    convert: fn(Duration) -> std::result::Result<u32, String>,
) -> std::result::Result<u32, String> {
    convert(parse_duration(text)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    fn created(line: &str) -> CreateArgs {
        let words = ["volume", "create", "db"].into_iter().chain(line.split_whitespace());
        match Line::try_parse_from(words).unwrap().verb {
            Verb::Create(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn db() -> Text {
        volume::name("db").unwrap()
    }

    #[test]
    fn what_is_agreed_holds_for_every_target_of_the_line() {
        let args = created(
            "--target nbd://a/ --target nbd://b/ --on-failure error --deadline 0s --answer-timeout 1s \
             --retry-max 100ms --retries 7 --connections 8 --keepalive 1m",
        );
        let wanted = args.wanted(db()).unwrap();
        for target in &wanted.targets {
            let terms = target.agreed.terms;
            assert_eq!(terms.on_failure, OnFailure::Error);
            assert_eq!((terms.deadline_ms, terms.answer_ms), (0, 1000));
            assert_eq!((terms.retry_ms, terms.retries), (100, 7));
            assert_eq!((target.agreed.connections, target.agreed.keepalive_s), (8, 60));
        }
        let plain = created("--target nbd://a/").wanted(db()).unwrap();
        assert_eq!(plain.targets[0].agreed, Agreed::DEFAULT);
    }

    #[test]
    fn the_shorthand_of_today_makes_the_volume_of_today() {
        let args = created("--kind ram --size 64M --hw-queues 2");
        let create = args.simple(db(), Kind::Ram);
        assert_eq!((create.bytes, create.block_bytes, create.hw_queues), (64 << 20, 4096, 2));
        assert!(!create.polled);
    }

    #[test]
    fn queues_for_polled_io_are_asked_for_with_and_without_targets() {
        assert!(created("--kind null --size 64M --polled").simple(db(), Kind::Null).polled);
        assert!(created("--target ram:64M --polled").wanted(db()).unwrap().polled);
        assert!(!created("--target ram:64M").wanted(db()).unwrap().polled);
    }

    #[test]
    fn what_cannot_be_is_wrong_usage_and_names_the_field() {
        for (line, field) in [
            ("--target ram:64M --chunk 64K", "chunk"),
            ("--target bdev:/dev/a --target bdev:/dev/a", "target 2"),
            ("--target ram", "target 1"),
            ("--layout stripe --target ram:1M --target ram:1M --size 3M", "target 1"),
        ] {
            let problem = created(line).wanted(db()).unwrap_err();
            assert_eq!(problem.exit, Exit::Usage);
            assert!(problem.why.starts_with(field), "{line}: {}", problem.why);
        }
    }

    #[test]
    fn a_device_that_is_none_of_atoms_has_no_volume() {
        assert_eq!(name_in_time("/dev/null").unwrap_err().exit, Exit::Usage);
        assert_eq!(udev("/dev/null"), Exit::Undone);
    }

    #[test]
    fn the_time_since_the_start_is_known() {
        let first = since_start_us().unwrap();
        assert!(first > 0 && since_start_us().unwrap() >= first);
    }
}
