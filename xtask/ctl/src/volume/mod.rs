// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes: commands to the live payload, which Atom forwards without reading them.
//!
//! This is the only module that knows what a payload is made of. Another payload has another one.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`uri`] | addresses of NBD exports, as people write them |
//! | [`target`] | one target, as people write it |
//! | [`wanted`] | a volume that is wanted, and whether it can be |
//! | [`file`] | a TOML file of volumes |
//! | [`present`] | a volume that is there |
//! | [`plan`] | the way from the one to the other |
//! | [`apply`] | going that way |
//! | [`client`] | the commands of payloads with the client |
//! | [`refusal`] | what such a payload refuses, for people |
//! | [`machine`] | what the commands need of the machine: addresses of hosts, sizes of devices |
//! | [`device`] | the device of a volume: its partitions, and its name in `/dev/atom` |

use std::collections::BTreeMap;
use std::time::Instant;

use atom_abi::control::{payload_state, DeviceInfo, PayloadInfo};
use atom_abi::request::op;
use atom_abi::text::Text;
use atom_payload::answers::{self, Created, Entry, List, END_OF_LIST};
use atom_payload::counts::{Counts2, OPS};
use atom_payload::protocol::{Command, ProtocolError, MAX_COMMAND_BYTES};
use atom_payload::shape::{self, Description, PAGE_BYTES};
use nix::errno::Errno;

pub use atom_payload::protocol::Create;
pub use atom_payload::shape::Kind;

use self::machine::Machine;
use crate::control::Control;
use crate::problem::{Problem, Result};
use crate::report::{VolumeEntry, Work};

pub mod apply;
pub mod client;
pub mod device;
#[cfg(test)]
mod fake;
pub mod file;
pub mod machine;
pub mod plan;
pub mod present;
pub mod refusal;
pub mod target;
pub mod uri;
pub mod wanted;

/// The schema with which the client begins.
const CLIENT_SCHEMA: u32 = 4;

/// Who carries out the commands: Atom's control device, or a test.
pub trait Commands {
    /// Forwards a command to the live payload and returns its answer, or the error with which it refused.
    fn command(&self, input: &[u8]) -> Result<std::result::Result<Vec<u8>, Errno>>;
    /// The live payload.
    fn live(&self) -> Result<Live>;
    /// The devices.
    fn devices(&self) -> Result<Vec<DeviceInfo>>;
}

impl Commands for Control {
    fn command(&self, input: &[u8]) -> Result<std::result::Result<Vec<u8>, Errno>> {
        self.forward(input)
    }

    fn live(&self) -> Result<Live> {
        let payloads = self.payloads()?;
        let serving = self.status()?.live;
        payloads.iter().find(|payload| payload.id == serving).map(Live::of).ok_or_else(|| {
            Problem::refused(
                "There are no volumes",
                "no payload is live",
                "make one live first: atomctl load FILE, or atomctl adopt",
            )
        })
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>> {
        Control::devices(self)
    }
}

/// The live payload, as far as it matters for volumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// Its version.
    pub version: String,
    /// Whether it can have volumes over devices and servers.
    pub has_client: bool,
}

impl Live {
    fn of(payload: &PayloadInfo) -> Self {
        Self {
            version: payload.version.as_str().to_owned(),
            has_client: payload.state != payload_state::DEAD
                && payload.schema.write_max >= CLIENT_SCHEMA,
        }
    }
}

/// The kind of this name.
pub fn kind(name: &str) -> Option<Kind> {
    [Kind::Null, Kind::Ram].into_iter().find(|kind| kind.name() == name)
}

/// A name that a volume can have.
pub fn name(text: &str) -> Result<Text> {
    shape::new_name(text).ok_or_else(|| {
        Problem::usage(
            format!("A volume cannot be named {text:?}"),
            "a name has 1 to 63 letters, digits, dashes, underscores and dots, and is not . or ..",
            "choose another name",
        )
    })
}

/// Creates a volume and returns N of its `/dev/atomN`.
pub fn create(commands: &impl Commands, create: &Create) -> Result<u32> {
    create.shape().map_err(|error| {
        Problem::usage(
            "There cannot be such a volume",
            error.to_string(),
            "give a size that is a multiple of the block size, a block size from 512 to 4096 that \
             is a power of two, and at most 256 queues",
        )
    })?;
    let what = || format!("Volume {} was not created", create.name);
    let answer = send(commands, &Command::Create(*create), what)?;
    Created::decode(&answer).map(|created| created.device).map_err(|error| garbled(&error))
}

/// Removes a volume, its device and its data. Who has its device open only for a moment is waited for, as udev has
/// each device that is new or was written.
pub fn destroy(commands: &impl Commands, machine: &impl Machine, name: Text) -> Result<()> {
    let what = || format!("Volume {name} was not destroyed");
    let begun = Instant::now();
    loop {
        match answer_to(commands, &Command::Destroy { name })? {
            Err(Errno::EBUSY) => {
                let (device, requests) = in_use(commands, name)?;
                if !machine.lets_go(device, begun.elapsed()) {
                    return Err(refusal::in_use(what(), name, requests));
                }
            }
            answer => {
                let answer = answer.map_err(|errno| refusal::plain(what(), errno))?;
                return answers::decode_done(&answer).map_err(|error| garbled(&error));
            }
        }
    }
}

/// N of the `/dev/atomN` of a volume, and requests to it that have not ended.
fn in_use(commands: &impl Commands, name: Text) -> Result<(Option<u32>, u32)> {
    let entries = entries(commands)?;
    let entry = entries.iter().find(|entry| entry.volume.name == name);
    let Some(device) = entry.map(|entry| entry.volume.device) else { return Ok((None, 0)) };
    let devices = commands.devices()?;
    let owed = devices.iter().find(|info| info.id == device).map_or(0, |info| info.owed);
    Ok((Some(device), owed))
}

/// All volumes, as the list of the live payload has them: without their targets.
pub fn list(commands: &impl Commands) -> Result<Vec<VolumeEntry>> {
    Ok(entries(commands)?.iter().map(|entry| described(&entry.volume, &entry.counts)).collect())
}

/// Names of the volumes that no image up to this schema has a place for. They are asked for only where the live payload can
/// have some.
pub fn beyond(commands: &impl Commands, schema: u32) -> Result<Vec<String>> {
    if schema >= CLIENT_SCHEMA || !commands.live()?.has_client {
        return Ok(Vec::new());
    }
    let entries = entries(commands)?;
    let volumes = entries.iter().map(|entry| &entry.volume);
    let over_targets = volumes.filter(|volume| !volume.shape.kind.is_simple());
    Ok(over_targets.map(|volume| volume.name.as_str().to_owned()).collect())
}

/// Name of the volume of `/dev/atomN`.
pub fn name_of(commands: &impl Commands, device: u32) -> Result<Text> {
    entries(commands)?
        .iter()
        .find(|entry| entry.volume.device == device)
        .map(|entry| entry.volume.name)
        .ok_or_else(|| {
            Problem::undone(
                format!("/dev/atom{device} has no name"),
                "no volume of the live payload has this device",
                "look at atomctl volume list",
            )
        })
}

/// Test variants of the payload: keeps the next requests of one operation without ending them.
pub fn hold(commands: &impl Commands, op: u8, requests: u32) -> Result<()> {
    done(commands, &Command::Hold { op, requests }, || "Requests are not kept".to_owned())
}

/// Test variants of the payload: carries out and ends what was kept.
pub fn release(commands: &impl Commands) -> Result<()> {
    done(commands, &Command::Release, || "Requests were not released".to_owned())
}

/// The whole list of the live payload.
fn entries(commands: &impl Commands) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut from = 0;
    loop {
        let what = || "The volumes cannot be listed".to_owned();
        let answer = send(commands, &Command::List { from }, what)?;
        let list = List::decode(&answer).map_err(|error| garbled(&error))?;
        entries.extend(list.entries());
        if list.next == END_OF_LIST {
            return Ok(entries);
        }
        if list.next <= from {
            return Err(garbled(&ProtocolError::Invalid("next place")));
        }
        from = list.next;
    }
}

fn done(commands: &impl Commands, command: &Command<'_>, what: impl Fn() -> String) -> Result<()> {
    let answer = send(commands, command, what)?;
    answers::decode_done(&answer).map_err(|error| garbled(&error))
}

/// Sends a command. `what` did not happen when the payload refuses it.
fn send(
    commands: &impl Commands,
    command: &Command<'_>,
    what: impl Fn() -> String,
) -> Result<Vec<u8>> {
    answer_to(commands, command)?.map_err(|errno| refusal::plain(what(), errno))
}

/// Sends a command, and returns the answer or the error with which the payload refuses it.
fn answer_to(
    commands: &impl Commands,
    command: &Command<'_>,
) -> Result<std::result::Result<Vec<u8>, Errno>> {
    let mut buffer = vec![0; MAX_COMMAND_BYTES];
    let length = command.encode(&mut buffer).map_err(|error| garbled(&error))?;
    commands.command(buffer.get(..length).unwrap_or(&buffer))
}

fn garbled(error: &ProtocolError) -> Problem {
    Problem::undone(
        "The live payload and this tool do not understand each other",
        error.to_string(),
        "use the atomctl that was released with the live payload",
    )
}

/// A volume, without what only its targets can tell.
fn described(volume: &Description, counts: &Counts2) -> VolumeEntry {
    let shape = &volume.shape;
    let kind = shape.kind.name().to_owned();
    let done: BTreeMap<String, Work> = OPS
        .iter()
        .map(|code| {
            let counts = counts.of(*code);
            let work = Work { ios: counts.ios, bytes: counts.bytes };
            (op::name(*code).to_owned(), work)
        })
        .collect();
    let (layout, targets, state) = match shape.kind.is_simple() {
        true => {
            let size = target::compact(shape.capacity_sectors.saturating_mul(512));
            ("linear".to_owned(), vec![format!("{kind}:{size}")], "ready".to_owned())
        }
        false => (kind.clone(), Vec::new(), String::new()),
    };
    VolumeEntry {
        name: volume.name.as_str().to_owned(),
        kind,
        layout,
        targets,
        state,
        device: format!("/dev/atom{}", volume.device),
        link: device::link(volume.name.as_str(), volume.device),
        bytes: shape.capacity_sectors.saturating_mul(512),
        block_bytes: shape.block_bytes,
        hw_queues: shape.hw_queues,
        queue_depth: shape.queue_depth,
        resident_bytes: volume.pages.saturating_mul(PAGE_BYTES.into()),
        done,
        errors: counts.errors,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use atom_payload::answers::ListWriter;
    use atom_payload::shape::{Shape, VolumeId};

    use super::*;

    /// Answers with one volume at a time.
    struct Payload {
        volumes: u32,
        endless: bool,
        seen: RefCell<Vec<Create>>,
    }

    impl Payload {
        fn new(volumes: u32) -> Self {
            Self { volumes, endless: false, seen: RefCell::default() }
        }
    }

    impl Commands for Payload {
        fn command(&self, input: &[u8]) -> Result<std::result::Result<Vec<u8>, Errno>> {
            let command = Command::decode(input).unwrap();
            if let Command::Create(create) = command {
                self.seen.borrow_mut().push(create);
            }
            let mut answer = vec![0; 4096];
            let length = match command {
                Command::Create(_) => Created { volume: 1 << 16, device: 7 }.encode(&mut answer),
                Command::List { from } => {
                    let mut list = ListWriter::new(&mut answer, 2).unwrap();
                    if from < self.volumes {
                        list.entry(&volume(from)).unwrap();
                    }
                    let next = match from + 1 {
                        _ if self.endless => 0,
                        next if next < self.volumes => next,
                        _ => END_OF_LIST,
                    };
                    list.finish(next)
                }
                _ => answers::encode_done(&mut answer),
            };
            answer.truncate(length.unwrap());
            Ok(Ok(answer))
        }

        fn live(&self) -> Result<Live> {
            Ok(Live { version: "1.2.0".to_owned(), has_client: false })
        }

        fn devices(&self) -> Result<Vec<DeviceInfo>> {
            Ok(Vec::new())
        }
    }

    fn volume(slot: u32) -> Entry {
        Entry {
            volume: Description {
                id: VolumeId::new(slot as usize, 1).unwrap(),
                device: slot,
                shape: Shape::new(Kind::Ram, 64 << 20, 4096, 2, 64).unwrap(),
                pages: 3,
                name: Text::new(&format!("vol{slot}")),
            },
            counts: Counts2::default(),
        }
    }

    fn spec() -> Create {
        Create {
            name: name("db").unwrap(),
            kind: Kind::Ram,
            bytes: 64 << 20,
            block_bytes: 4096,
            hw_queues: 0,
            queue_depth: 0,
            polled: false,
        }
    }

    #[test]
    fn a_volume_is_created_as_it_was_asked_for() {
        let payload = Payload::new(0);
        assert_eq!(create(&payload, &spec()).unwrap(), 7);
        assert_eq!(*payload.seen.borrow(), [spec()]);
    }

    #[test]
    fn a_volume_that_cannot_be_is_refused_before_the_payload_sees_it() {
        let payload = Payload::new(0);
        let odd = Create { bytes: 1000, ..spec() };
        assert_eq!(create(&payload, &odd).unwrap_err().exit.code(), 2);
        assert!(payload.seen.borrow().is_empty());
    }

    #[test]
    fn a_list_is_followed_to_its_end() {
        let volumes = list(&Payload::new(3)).unwrap();
        let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["vol0", "vol1", "vol2"]);
        assert_eq!(volumes[1].device, "/dev/atom1");
        assert_eq!(volumes[1].resident_bytes, 3 * 4096);
        assert!(list(&Payload::new(0)).unwrap().is_empty());
    }

    #[test]
    fn a_list_that_goes_round_in_a_circle_ends_with_an_error() {
        let payload = Payload { endless: true, ..Payload::new(3) };
        assert!(list(&payload).is_err());
    }

    #[test]
    fn the_name_of_a_device_is_found_in_the_list() {
        let payload = Payload::new(3);
        assert_eq!(name_of(&payload, 2).unwrap().as_str(), "vol2");
        assert_eq!(name_of(&payload, 3).unwrap_err().exit.code(), 1);
    }

    #[test]
    fn names_that_no_volume_can_have_are_wrong_usage() {
        for text in ["", "a b", "ä", ".", "..", &"x".repeat(64)] {
            assert_eq!(name(text).unwrap_err().exit.code(), 2, "{text}");
        }
    }
}
