// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes: commands to the live payload, which Atom forwards without reading them.
//!
//! This is the only module that knows what a payload is made of. Another payload has another one.

use std::collections::BTreeMap;

use atom_abi::request::op;
use atom_abi::text::Text;
use atom_payload::answers::{self, Created, Entry, List, END_OF_LIST};
use atom_payload::counts::OPS;
use atom_payload::protocol::{Command, ProtocolError, MAX_COMMAND_BYTES};
use atom_payload::shape::{self, PAGE_BYTES};

pub use atom_payload::protocol::Create;
pub use atom_payload::shape::Kind;

use crate::control::Control;
use crate::problem::{Problem, Result};
use crate::report::{VolumeEntry, Work};

/// Who carries out the commands: Atom's control device, or a test.
pub trait Commands {
    /// Forwards a command to the live payload and returns its answer.
    fn command(&self, input: &[u8]) -> Result<Vec<u8>>;
}

impl Commands for Control {
    fn command(&self, input: &[u8]) -> Result<Vec<u8>> {
        Control::command(self, input)
    }
}

/// The kind of this name.
pub fn kind(name: &str) -> Option<Kind> {
    [Kind::Null, Kind::Ram].into_iter().find(|kind| kind.name() == name)
}

/// A name that a volume can have.
pub fn name(text: &str) -> Result<Text> {
    shape::name(text).ok_or_else(|| {
        Problem::usage(
            format!("A volume cannot be named {text:?}"),
            "a name has 1 to 63 letters, digits, dashes, underscores and dots",
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
    let answer = send(commands, &Command::Create(*create))?;
    Created::decode(&answer).map(|created| created.device).map_err(|error| garbled(&error))
}

/// Removes a volume, its device and its data.
pub fn destroy(commands: &impl Commands, name: Text) -> Result<()> {
    done(commands, &Command::Destroy { name })
}

/// All volumes.
pub fn list(commands: &impl Commands) -> Result<Vec<VolumeEntry>> {
    let mut volumes = Vec::new();
    let mut from = 0;
    loop {
        let answer = send(commands, &Command::List { from })?;
        let list = List::decode(&answer).map_err(|error| garbled(&error))?;
        volumes.extend(list.entries().map(|entry| described(&entry)));
        if list.next == END_OF_LIST {
            return Ok(volumes);
        }
        if list.next <= from {
            return Err(garbled(&ProtocolError::Invalid("next place")));
        }
        from = list.next;
    }
}

/// Test variants of the payload: keeps the next requests of one operation without ending them.
pub fn hold(commands: &impl Commands, op: u8, requests: u32) -> Result<()> {
    done(commands, &Command::Hold { op, requests })
}

/// Test variants of the payload: carries out and ends what was kept.
pub fn release(commands: &impl Commands) -> Result<()> {
    done(commands, &Command::Release)
}

fn done(commands: &impl Commands, command: &Command) -> Result<()> {
    let answer = send(commands, command)?;
    answers::decode_done(&answer).map_err(|error| garbled(&error))
}

fn send(commands: &impl Commands, command: &Command) -> Result<Vec<u8>> {
    let mut buffer = [0; MAX_COMMAND_BYTES];
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

fn described(entry: &Entry) -> VolumeEntry {
    let volume = &entry.volume;
    let shape = &volume.shape;
    let done: BTreeMap<String, Work> = OPS
        .iter()
        .map(|code| {
            let counts = entry.counts.of(*code);
            let work = Work { ios: counts.ios, bytes: counts.bytes };
            (op::name(*code).to_owned(), work)
        })
        .collect();
    VolumeEntry {
        name: volume.name.as_str().to_owned(),
        kind: shape.kind.name().to_owned(),
        device: format!("/dev/atom{}", volume.device),
        bytes: shape.capacity_sectors.saturating_mul(512),
        block_bytes: shape.block_bytes,
        hw_queues: shape.hw_queues,
        queue_depth: shape.queue_depth,
        resident_bytes: volume.pages.saturating_mul(PAGE_BYTES.into()),
        done,
        errors: entry.counts.errors,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use atom_payload::answers::ListWriter;
    use atom_payload::counts::Counts2;
    use atom_payload::shape::{Description, Shape, VolumeId};

    use super::*;

    /// Answers with one volume at a time.
    struct Payload {
        volumes: u32,
        endless: bool,
        seen: RefCell<Vec<Command>>,
    }

    impl Payload {
        fn new(volumes: u32) -> Self {
            Self { volumes, endless: false, seen: RefCell::default() }
        }
    }

    impl Commands for Payload {
        fn command(&self, input: &[u8]) -> Result<Vec<u8>> {
            let command = Command::decode(input).unwrap();
            self.seen.borrow_mut().push(command);
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
            Ok(answer)
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
        }
    }

    #[test]
    fn a_volume_is_created_as_it_was_asked_for() {
        let payload = Payload::new(0);
        assert_eq!(create(&payload, &spec()).unwrap(), 7);
        assert_eq!(payload.seen.borrow()[0], Command::Create(spec()));
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
    fn names_that_no_volume_can_have_are_wrong_usage() {
        for text in ["", "a b", "ä", &"x".repeat(64)] {
            assert_eq!(name(text).unwrap_err().exit.code(), 2, "{text}");
        }
    }
}
