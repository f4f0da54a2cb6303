// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A payload and a machine for the tests: volumes without data.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use atom_abi::control::DeviceInfo;
use atom_abi::device::feature;
use atom_abi::text::Text;
use atom_payload::answers::{
    encode_done, encode_outcome_done, Composed, Created, Entry, Given, ListWriter, Refused,
    END_OF_LIST,
};
use atom_payload::counts::Counts2;
use atom_payload::history::Failure;
use atom_payload::latency::OpLatency;
use atom_payload::layout::{share, Share};
use atom_payload::limits::Facts;
use atom_payload::protocol::{Command, Output};
use atom_payload::shape::{Description, Kind, Shape, VolumeId};
use atom_payload::shown::{Connection, ShownWriter, Status, TargetState};
use atom_payload::spec::{Layout, Made, Target, MAX_MADE_BYTES};
use nix::errno::Errno;

use super::client::{at, literal};
use super::machine::Machine;
use super::target::At;
use super::{Commands, Live};
use crate::blank;
use crate::problem::Result;

/// A payload whose targets are as large as it is told, 1 GiB when it is told nothing.
pub struct Payload {
    pub has_client: bool,
    /// Sizes of devices and exports, in bytes, by what they are.
    pub sizes: RefCell<BTreeMap<String, u64>>,
    /// Literal addresses at which nobody answers.
    pub silent: Vec<String>,
    /// Devices that are open.
    pub open: RefCell<Vec<u32>>,
    /// Those of them that are closed when somebody waits for it.
    pub looking: RefCell<Vec<u32>>,
    /// A volume that cannot be made.
    pub cursed: Option<&'static str>,
    /// The volumes, by N of their devices.
    pub volumes: RefCell<BTreeMap<u32, Volume>>,
    /// What was asked for, in short.
    pub seen: RefCell<Vec<String>>,
    /// Devices whose volumes were made ready for use.
    pub settled: RefCell<Vec<u32>>,
}

pub struct Volume {
    pub shape: Shape,
    pub name: Text,
    /// What it is made of, encoded; nothing for a simple one.
    pub made: Vec<u8>,
    pub polled: bool,
}

type Answered = std::result::Result<usize, Refusal>;

struct Refusal {
    errno: Errno,
    target: Option<usize>,
    why: &'static str,
}

fn no<T>(
    errno: Errno,
    target: Option<usize>,
    why: &'static str,
) -> std::result::Result<T, Refusal> {
    Err(Refusal { errno, target, why })
}

impl Payload {
    pub fn new() -> Self {
        Self {
            has_client: true,
            sizes: RefCell::default(),
            silent: Vec::new(),
            open: RefCell::default(),
            looking: RefCell::default(),
            cursed: None,
            volumes: RefCell::default(),
            seen: RefCell::default(),
            settled: RefCell::default(),
        }
    }

    pub fn without_client() -> Self {
        Self { has_client: false, ..Self::new() }
    }

    pub fn set_size(&self, at: &str, bytes: u64) {
        self.sizes.borrow_mut().insert(at.to_owned(), bytes);
    }

    /// Bytes of a volume.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        let volumes = self.volumes.borrow();
        let found = volumes.values().find(|volume| volume.name.as_str() == name)?;
        Some(found.shape.capacity_sectors * 512)
    }

    fn size(&self, at: &At) -> u64 {
        self.sizes.borrow().get(&at.to_string()).copied().unwrap_or(1 << 30)
    }

    fn find(&self, name: &Text) -> Option<u32> {
        let volumes = self.volumes.borrow();
        let found = volumes.iter().find(|(_, volume)| volume.name == *name);
        found.map(|(device, _)| *device)
    }

    /// The targets of a volume with the sectors that they give, encoded. The payload's own rule decides.
    fn resolved(
        &self,
        made: &Made<'_>,
        block_bytes: u32,
        own: Option<u32>,
    ) -> std::result::Result<(Vec<u8>, u64), Refusal> {
        let mut shares = Vec::new();
        for (index, target) in made.targets().enumerate() {
            let here = at(&target.source);
            let index = Some(index);
            if literal(&target.source).is_some_and(|address| self.silent.contains(&address)) {
                return no(Errno::ENOTCONN, index, "nobody answers");
            }
            if self.is_held(&here, own) {
                return no(Errno::EBUSY, index, "it is held");
            }
            let has = if here.is_made_up() { u64::MAX } else { self.size(&here) / 512 };
            if (target.sectors, has) == (0, u64::MAX) {
                return no(Errno::EINVAL, index, "it has no size");
            }
            shares.push(Share { asked: target.sectors, has });
        }
        let given = match share(made.layout, block_bytes, &shares) {
            Ok(given) => given,
            Err((at, _)) => return no(Errno::EINVAL, Some(at), "it does not fit"),
        };
        let targets: Vec<Target<'_>> = made
            .targets()
            .zip(given)
            .map(|(target, sectors)| Target { sectors, ..target })
            .collect();
        let sectors = targets.iter().map(|target| target.sectors).sum();
        let mut bytes = vec![0; MAX_MADE_BYTES];
        let mut out = Output::new(&mut bytes);
        Made::encode(made.layout, targets.into_iter(), &mut out).unwrap();
        let length = out.len();
        bytes.truncate(length);
        Ok((bytes, sectors))
    }

    fn is_held(&self, here: &At, own: Option<u32>) -> bool {
        let volumes = self.volumes.borrow();
        let mut others = volumes.iter().filter(|(device, _)| own != Some(**device));
        matches!(here, At::Bdev(_))
            && others.any(|(_, volume)| {
                Made::decode(&volume.made)
                    .is_ok_and(|made| made.targets().any(|target| at(&target.source) == *here))
            })
    }

    fn insert(&self, name: Text, shape: Shape, made: Vec<u8>, polled: bool) -> u32 {
        let mut volumes = self.volumes.borrow_mut();
        let device = (0..).find(|device| !volumes.contains_key(device)).unwrap();
        volumes.insert(device, Volume { shape, name, made, polled });
        device
    }

    fn carry_out(&self, command: &Command<'_>, answer: &mut [u8]) -> Answered {
        let (kind, name) = match command {
            Command::Create(create) => ("create", create.name),
            Command::Destroy { name } => ("destroy", *name),
            Command::Compose(compose) => ("compose", compose.name),
            Command::Show { name } => ("show", *name),
            Command::Resize { name, .. } => ("resize", *name),
            Command::Reconnect { name, .. } => ("reconnect", *name),
            _ => ("list", Text::EMPTY),
        };
        if !matches!(kind, "list" | "show") {
            self.seen.borrow_mut().push(format!("{kind} {name}"));
        }
        let device = self.find(&name);
        let there = || match device {
            Some(device) => Ok(device),
            None => no(Errno::ENOENT, None, "there is no such volume"),
        };
        if matches!(kind, "create" | "compose") {
            if device.is_some() {
                return no(Errno::EEXIST, None, "the name is taken");
            }
            if self.cursed == Some(name.as_str()) {
                return no(Errno::EIO, None, "it is cursed");
            }
        }
        Ok(match command {
            Command::Create(create) => {
                let shape = create.shape().unwrap();
                let device = self.insert(name, shape, Vec::new(), create.polled);
                Created { volume: 1 << 16, device }.encode(answer).unwrap()
            }
            Command::Destroy { .. } => {
                let device = there()?;
                if self.open.borrow().contains(&device) {
                    return no(Errno::EBUSY, None, "");
                }
                self.volumes.borrow_mut().remove(&device);
                encode_done(answer).unwrap()
            }
            Command::List { from } => {
                let volumes = self.volumes.borrow();
                let mut list = ListWriter::new(answer, 5).unwrap();
                let mut next = END_OF_LIST;
                for (device, volume) in volumes.range(from..) {
                    if !list.has_room() {
                        next = *device;
                        break;
                    }
                    let volume = description(*device, volume);
                    list.entry(&Entry { volume, counts: Counts2::default() }).unwrap();
                }
                list.finish(next).unwrap()
            }
            Command::Compose(compose) => {
                let block = if compose.block_bytes == 0 { 512 } else { compose.block_bytes };
                let (made, sectors) = self.resolved(&compose.made, block, None)?;
                let kind = match compose.made.layout {
                    Layout::Linear => Kind::Linear,
                    Layout::Stripe { .. } => Kind::Stripe,
                };
                let (queues, depth) = (compose.hw_queues, compose.queue_depth);
                let Some(shape) = Shape::new(kind, sectors * 512, block, queues, depth) else {
                    return no(Errno::EINVAL, None, "there is no such shape");
                };
                let device = self.insert(name, shape, made, compose.polled);
                self.composed(device, answer)
            }
            Command::Resize { made, .. } => {
                let device = there()?;
                self.check_sleeping(device, made)?;
                let block = self.volumes.borrow()[&device].shape.block_bytes;
                let (made, sectors) = self.resolved(made, block, Some(device))?;
                let mut volumes = self.volumes.borrow_mut();
                let volume = volumes.get_mut(&device).unwrap();
                assert!(keeps_data(&volume.made, &made), "no data moves and nothing shrinks");
                volume.made = made;
                volume.shape.capacity_sectors = sectors;
                drop(volumes);
                self.composed(device, answer)
            }
            Command::Reconnect { .. } => {
                there()?;
                encode_outcome_done(answer).unwrap()
            }
            Command::Show { .. } => {
                let device = there()?;
                self.check_targets(device)?;
                self.show(device, answer)
            }
            other => panic!("{other:?}"),
        })
    }

    fn check_targets(&self, device: u32) -> std::result::Result<(), Refusal> {
        match self.volumes.borrow()[&device].made.is_empty() {
            true => no(Errno::EOPNOTSUPP, None, "the volume has no targets"),
            false => Ok(()),
        }
    }

    fn check_sleeping(&self, device: u32, wanted: &Made<'_>) -> std::result::Result<(), Refusal> {
        self.check_targets(device)?;
        let volumes = self.volumes.borrow();
        let sleeps =
            |made: &Made<'_>| made.targets().any(|target| !at(&target.source).is_made_up());
        match sleeps(&Made::decode(&volumes[&device].made).unwrap()) == sleeps(wanted) {
            true => Ok(()),
            false => no(Errno::EOPNOTSUPP, None, "a volume of memory can only grow by memory"),
        }
    }

    fn composed(&self, device: u32, answer: &mut [u8]) -> usize {
        let volumes = self.volumes.borrow();
        let volume = &volumes[&device];
        let made = Made::decode(&volume.made).unwrap();
        let given: Vec<Given> = made
            .targets()
            .map(|target| Given { used: target.sectors, sectors: target.sectors })
            .collect();
        let sectors = volume.shape.capacity_sectors;
        Composed::encode(1 << 16, device, sectors, given.into_iter(), answer).unwrap()
    }

    fn show(&self, device: u32, answer: &mut [u8]) -> usize {
        let volumes = self.volumes.borrow();
        let volume = &volumes[&device];
        let made = Made::decode(&volume.made).unwrap();
        let description = description(device, volume);
        let mut shown =
            ShownWriter::new(answer, 5, &description, &Counts2::default(), &made).unwrap();
        for target in made.targets() {
            let here = at(&target.source);
            let silent = literal(&target.source).is_some_and(|one| self.silent.contains(&one));
            let on_network = matches!(here, At::Nbd(_));
            let sectors = if here.is_made_up() { target.sectors } else { self.size(&here) / 512 };
            let status = Status {
                state: if silent { TargetState::Retrying } else { TargetState::Ready },
                connections: u32::from(on_network),
                wanted: u32::from(on_network),
                waiting: 3,
                since_ns: 12_000_000_000,
                reconnects: 1,
                resent: 2,
                protocol_errors: 0,
                failures: 1,
                pages: 0,
                facts: Facts::of_memory(sectors),
                last_error: Text::new(if silent { "nobody answers" } else { "" }),
            };
            let connection =
                Connection { local_port: 45_332, state: TargetState::Ready, sent: 9, answered: 8 };
            let connections = vec![connection; usize::from(on_network)];
            let mut latency =
                OpLatency { total_ns: 30_000, longest_ns: 20_000, ..OpLatency::default() };
            (latency.buckets[3], latency.buckets[5]) = (1, 4);
            let failure = Failure { when_ns: 5_000_000_000, sector: 77, op: 0, status: 7 };
            let by_op = |at| if at == 0 { latency } else { OpLatency::default() };
            shown.target(&status, connections.into_iter(), by_op, [failure].into_iter()).unwrap();
        }
        shown.finish()
    }
}

/// Whether all that a volume holds stays where it is.
fn keeps_data(was: &[u8], is: &[u8]) -> bool {
    let (was, is) = (Made::decode(was).unwrap(), Made::decode(is).unwrap());
    let last = was.len() - 1;
    let stripe = was.layout != Layout::Linear;
    let mut pairs = was.targets().zip(is.targets()).enumerate();
    was.layout == is.layout
        && (if stripe { was.len() == is.len() } else { was.len() <= is.len() })
        && pairs.all(|(index, (was, is))| match stripe || index == last {
            true => was.source == is.source && was.sectors <= is.sectors,
            false => was == is,
        })
}

fn description(device: u32, volume: &Volume) -> Description {
    let id = VolumeId::new(device as usize, 1).unwrap();
    Description { id, device, shape: volume.shape, pages: 0, name: volume.name }
}

impl Commands for Payload {
    fn command(&self, input: &[u8]) -> Result<std::result::Result<Vec<u8>, Errno>> {
        let command = Command::decode(input).unwrap();
        let reasoned = matches!(
            command,
            Command::Compose(_)
                | Command::Show { .. }
                | Command::Resize { .. }
                | Command::Reconnect { .. }
        );
        if reasoned && !self.has_client {
            return Ok(Err(Errno::EINVAL));
        }
        let mut answer = vec![0; 64 << 10];
        let length = match self.carry_out(&command, &mut answer) {
            Ok(length) => length,
            Err(refusal) if reasoned => {
                let (errno, target) = (refusal.errno as u32, refusal.target.map(|at| at as u32));
                Refused { errno, target, why: refusal.why }.encode(&mut answer).unwrap()
            }
            Err(refusal) => return Ok(Err(refusal.errno)),
        };
        answer.truncate(length);
        Ok(Ok(answer))
    }

    fn live(&self) -> Result<Live> {
        let version = if self.has_client { "2.0.0" } else { "1.2.0" };
        Ok(Live { version: version.to_owned(), has_client: self.has_client })
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>> {
        let volumes = self.volumes.borrow();
        let info = |(id, volume): (&u32, &Volume)| {
            let opens = self.open.borrow().iter().filter(|open| *open == id).count();
            let features = if volume.polled { feature::POLLED } else { 0 };
            DeviceInfo { id: *id, opens: opens as u32, features, ..blank::DEVICE }
        };
        Ok(volumes.iter().map(info).collect())
    }
}

impl Machine for Payload {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: &[&str] = match host {
            "nowhere" => return Err(io::Error::other("Name does not resolve")),
            "void" => &[],
            "store" => &["10.0.0.1", "10.0.0.1", "10.0.0.2"],
            "both" => &["::1", "127.0.0.1"],
            literal => &[literal],
        };
        let address =
            |text: &&str| SocketAddr::new(text.parse().unwrap_or([10, 0, 0, 9].into()), port);
        Ok(addresses.iter().map(address).collect())
    }

    fn capacity(&self, at: &At) -> Option<u64> {
        matches!(at, At::Bdev(_)).then(|| self.size(at))
    }

    fn settle(&self, _: &str, device: u32) {
        self.settled.borrow_mut().push(device);
    }

    fn lets_go(&self, device: Option<u32>, _: Duration) -> bool {
        let mut looking = self.looking.borrow_mut();
        let found = looking.iter().position(|looks| device == Some(*looks));
        if let Some(index) = found {
            let looks = looking.remove(index);
            self.open.borrow_mut().retain(|open| *open != looks);
        }
        found.is_some()
    }
}
