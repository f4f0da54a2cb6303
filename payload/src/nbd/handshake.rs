// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The handshake with an NBD server: bytes in, bytes out. Pure.
//!
//! Fixed newstyle: structured replies are asked for, then the export by `OPT_GO` together with its block
//! sizes. A server without `OPT_GO` gets `OPT_EXPORT_NAME`. TLS is not spoken.
//!
//! What the server says is hostile: every length is bounded, nothing is allocated, and never are more
//! bytes asked for than belong to the handshake, so that the first byte of the transmission phase stays
//! in the socket.

use core::fmt;

use super::wire::{
    handshake_flag, info, option, reply, transmission, Wire, IHAVEOPT, INIT_PASSWD, OLDSTYLE,
    OPTION_BYTES, OPTION_REPLY, OPTION_REPLY_BYTES,
};

/// Longest name of an export, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Most bytes that are sent at once.
const OUTPUT_BYTES: usize = 4 + OPTION_BYTES + 4 + MAX_NAME_BYTES + 4;
/// Most bytes of a part whose content matters.
const PART_BYTES: usize = 20;
/// Longest data of a reply to an option, in bytes.
const MAX_DATA_BYTES: u32 = 16 << 10;
/// Most replies to one option.
const MAX_REPLIES: u32 = 64;
/// Bytes of the server's own words that are kept.
const WORDS_BYTES: usize = 48;

/// What the handshake is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// The transmission phase.
    Transmission,
    /// To know what the export is like; the connection is of no use afterwards.
    Facts,
}

/// Sizes of blocks in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Smallest length and alignment, a power of two up to 65536.
    pub minimum: u32,
    /// Smallest length that is efficient, a power of two.
    pub preferred: u32,
    /// Longest read or write.
    pub maximum: u32,
}

impl Blocks {
    /// What holds for a server that says nothing: its own default is a minimum of 1, and 512 is the
    /// smallest that a block device can have.
    pub const DEFAULT: Self = Self { minimum: 512, preferred: 4096, maximum: 32 << 20 };

    /// Whether a server may say so.
    pub const fn is_valid(&self) -> bool {
        self.minimum.is_power_of_two()
            && self.minimum <= 65536
            && self.preferred.is_power_of_two()
            && self.preferred >= self.minimum
            && self.maximum >= self.minimum
            && self.maximum >= 512
    }
}

/// What was agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// Size of the export in bytes.
    pub bytes: u64,
    /// Bits of [`transmission`].
    pub flags: u16,
    /// Its block sizes.
    pub blocks: Blocks,
    /// Whether reads are answered by structured replies.
    pub structured: bool,
}

/// Why there is no transmission phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// What listens there does not speak NBD.
    NotNbd,
    /// It speaks the oldstyle handshake only.
    OldStyle,
    /// It answered an option with something that is no reply, or with one to another option.
    NoReply,
    /// A reply of this type does not belong there.
    Unexpected(u32),
    /// A reply is longer than it may be, in bytes.
    TooLong(u32),
    /// There is no end of replies.
    TooMany,
    /// It began the transmission phase without saying what the export is.
    NoExport,
    /// Size, flags or block sizes are none.
    BadExport,
    /// There is no such export.
    UnknownExport,
    /// It wants TLS.
    Tls,
    /// It is shutting down.
    ShuttingDown,
    /// Its policy forbids it.
    Forbidden,
    /// It refuses, with this error.
    Refused(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNbd => f.write_str("it is no NBD server"),
            Self::OldStyle => f.write_str("the server speaks only the oldstyle handshake"),
            Self::NoReply => f.write_str("the server answers an option with something else"),
            Self::Unexpected(kind) => write!(f, "the server sends a reply of type {kind:#x}"),
            Self::TooLong(bytes) => write!(f, "the server sends a reply of {bytes} bytes"),
            Self::TooMany => f.write_str("the server does not end its replies"),
            Self::NoExport => f.write_str("the server does not describe the export"),
            Self::BadExport => f.write_str("the server describes an impossible export"),
            Self::UnknownExport => f.write_str("the server has no such export"),
            Self::Tls => f.write_str("the server requires TLS"),
            Self::ShuttingDown => f.write_str("the server is shutting down"),
            Self::Forbidden => f.write_str("the server's policy forbids it"),
            Self::Refused(error) => write!(f, "the server refuses with error {error:#x}"),
        }
    }
}

/// What is being received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Both magic numbers and the handshake flags: 18 bytes.
    Greeting,
    /// The header of a reply to an option.
    Header,
    /// The type of an information.
    InfoType { bytes: u32 },
    /// Size and flags of the export.
    InfoExport,
    /// Its block sizes.
    InfoBlocks,
    /// Bytes without meaning; the header's type decides what follows.
    Skip { bytes: u32 },
    /// The server's words about an error.
    Words { bytes: u32, kind: u32 },
    /// Size and flags behind `OPT_EXPORT_NAME`.
    Export,
    /// The zeroes behind them.
    Zeroes { bytes: u32 },
    /// Nothing more.
    Done,
}

/// A handshake under way.
///
/// Its owner sends what [`output`](Self::output) gives, hands over what it receives, at most
/// [`wanted`](Self::wanted) bytes at a time, and is done when [`agreed`](Self::agreed) says so.
#[derive(Clone, Debug)]
pub struct Handshake {
    goal: Goal,
    name: [u8; MAX_NAME_BYTES],
    name_bytes: usize,
    part: Part,
    have: [u8; PART_BYTES],
    have_bytes: usize,
    output: [u8; OUTPUT_BYTES],
    output_bytes: usize,
    output_at: usize,
    option: u32,
    replies: u32,
    no_zeroes: bool,
    structured: bool,
    export: Option<(u64, u16)>,
    blocks: Option<Blocks>,
    words: [u8; WORDS_BYTES],
    words_bytes: usize,
}

impl Handshake {
    /// Begins one for an export. `None` for a name that is too long.
    pub fn new(export: &str, goal: Goal) -> Option<Self> {
        let mut name = [0; MAX_NAME_BYTES];
        name.get_mut(..export.len())?.copy_from_slice(export.as_bytes());
        Some(Self {
            goal,
            name,
            name_bytes: export.len(),
            part: Part::Greeting,
            have: [0; PART_BYTES],
            have_bytes: 0,
            output: [0; OUTPUT_BYTES],
            output_bytes: 0,
            output_at: 0,
            option: 0,
            replies: 0,
            no_zeroes: false,
            structured: false,
            export: None,
            blocks: None,
            words: [0; WORDS_BYTES],
            words_bytes: 0,
        })
    }

    /// What is to be sent now.
    pub fn output(&self) -> &[u8] {
        self.output.get(self.output_at..self.output_bytes).unwrap_or(&[])
    }

    /// So many bytes of [`output`](Self::output) were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.output_at = self.output_at.saturating_add(bytes).min(self.output_bytes);
    }

    /// Most bytes that may be received now; 0 when it is over.
    pub fn wanted(&self) -> usize {
        match self.part {
            Part::Skip { bytes } | Part::Words { bytes, .. } | Part::Zeroes { bytes } => {
                bytes as usize
            }
            part => part.fixed().saturating_sub(self.have_bytes),
        }
    }

    /// What was agreed on, once the handshake is over.
    pub fn agreed(&self) -> Option<Agreed> {
        let (bytes, flags) = self.export.filter(|_| self.part == Part::Done)?;
        let blocks = self.blocks.unwrap_or(Blocks::DEFAULT);
        Some(Agreed { bytes, flags, blocks, structured: self.structured })
    }

    /// What the server itself said about its refusal, as far as it is text; empty when it said nothing.
    pub fn words(&self) -> &str {
        let bytes = self.words.get(..self.words_bytes).unwrap_or(&[]);
        let text = match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|valid| core::str::from_utf8(valid).ok())
                .unwrap_or(""),
        };
        text.split(char::is_control).next().unwrap_or("")
    }

    /// Takes bytes that were received, at most [`wanted`](Self::wanted) at a time; more are refused.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let length = bytes.len().min(self.wanted());
            let (head, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            if head.is_empty() {
                return Err(Refusal::NoReply);
            }
            bytes = rest;
            self.take(head)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        // `wanted` has bounded the length.
        let length = bytes.len() as u32;
        match &mut self.part {
            Part::Skip { bytes: left } | Part::Zeroes { bytes: left } => {
                *left = left.saturating_sub(length);
                if *left == 0 {
                    self.part_is_over()?;
                }
            }
            Part::Words { bytes: left, .. } => {
                *left = left.saturating_sub(length);
                let over = *left == 0;
                let room = self.words.get_mut(self.words_bytes..).unwrap_or(&mut []);
                for (to, from) in room.iter_mut().zip(bytes) {
                    *to = *from;
                    self.words_bytes = self.words_bytes.saturating_add(1);
                }
                if over {
                    self.part_is_over()?;
                }
            }
            part => {
                let fixed = part.fixed();
                let end = self.have_bytes.saturating_add(bytes.len());
                if let Some(room) = self.have.get_mut(self.have_bytes..end) {
                    room.copy_from_slice(bytes);
                }
                self.have_bytes = end;
                if end >= fixed {
                    self.have_bytes = 0;
                    self.part_is_over()?;
                }
            }
        }
        Ok(())
    }

    fn part_is_over(&mut self) -> Result<(), Refusal> {
        let have = self.have;
        let mut wire = Wire(&have);
        match self.part {
            Part::Greeting => {
                let (first, second) = (wire.u64(), wire.u64());
                match (first, second) {
                    (INIT_PASSWD, IHAVEOPT) => self.greet(wire.u16()),
                    (INIT_PASSWD, OLDSTYLE) => Err(Refusal::OldStyle),
                    _ => Err(Refusal::NotNbd),
                }
            }
            Part::Header => self.header(wire.u64(), wire.u32(), wire.u32(), wire.u32()),
            Part::InfoType { bytes } => {
                let rest = bytes.saturating_sub(2);
                self.part = match (wire.u16(), rest) {
                    (info::EXPORT, 10) => Part::InfoExport,
                    (info::BLOCK_SIZE, 12) => Part::InfoBlocks,
                    (info::EXPORT | info::BLOCK_SIZE, _) => return Err(Refusal::BadExport),
                    (_, 0) => Part::Header,
                    (_, bytes) => Part::Skip { bytes },
                };
                Ok(())
            }
            Part::InfoExport => {
                self.export = Some(export(wire.u64(), wire.u16())?);
                self.part = Part::Header;
                Ok(())
            }
            Part::InfoBlocks => {
                let blocks =
                    Blocks { minimum: wire.u32(), preferred: wire.u32(), maximum: wire.u32() };
                if !blocks.is_valid() {
                    return Err(Refusal::BadExport);
                }
                self.blocks = Some(blocks);
                self.part = Part::Header;
                Ok(())
            }
            Part::Skip { .. } => {
                self.part = Part::Header;
                Ok(())
            }
            Part::Words { kind, .. } => self.error(kind),
            Part::Export => {
                self.export = Some(export(wire.u64(), wire.u16())?);
                self.part = if self.no_zeroes { Part::Done } else { Part::Zeroes { bytes: 124 } };
                Ok(())
            }
            Part::Zeroes { .. } => {
                self.part = Part::Done;
                Ok(())
            }
            Part::Done => Err(Refusal::NoReply),
        }
    }

    fn greet(&mut self, flags: u16) -> Result<(), Refusal> {
        let both = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        self.no_zeroes = flags & handshake_flag::NO_ZEROES != 0;
        self.output_bytes = 0;
        self.output_at = 0;
        self.say(&u32::from(flags & both).to_be_bytes());
        if flags & handshake_flag::FIXED_NEWSTYLE == 0 {
            self.choose_by_name();
        } else {
            self.ask(option::STRUCTURED_REPLY, &[]);
        }
        Ok(())
    }

    fn header(&mut self, magic: u64, option: u32, kind: u32, bytes: u32) -> Result<(), Refusal> {
        if magic != OPTION_REPLY || option != self.option {
            return Err(Refusal::NoReply);
        }
        self.replies = self.replies.saturating_add(1);
        if self.replies > MAX_REPLIES {
            return Err(Refusal::TooMany);
        }
        if bytes > MAX_DATA_BYTES {
            return Err(Refusal::TooLong(bytes));
        }
        if kind & reply::ERROR != 0 {
            self.words_bytes = 0;
            if bytes == 0 {
                return self.error(kind);
            }
            self.part = Part::Words { bytes, kind };
            return Ok(());
        }
        match (option, kind, bytes) {
            (option::STRUCTURED_REPLY, reply::ACK, 0) => {
                self.structured = true;
                self.choose();
                Ok(())
            }
            (option::STRUCTURED_REPLY, _, _) => Err(Refusal::Unexpected(kind)),
            (_, reply::ACK, 0) if self.export.is_some() => {
                self.part = Part::Done;
                Ok(())
            }
            (_, reply::ACK, 0) => Err(Refusal::NoExport),
            (_, reply::ACK, _) => Err(Refusal::TooLong(bytes)),
            (_, reply::INFO, 2..) => {
                self.part = Part::InfoType { bytes };
                Ok(())
            }
            _ => Err(Refusal::Unexpected(kind)),
        }
    }

    /// The option has failed, and all of the reply was read.
    fn error(&mut self, kind: u32) -> Result<(), Refusal> {
        match (self.option, kind) {
            (_, reply::ERR_TLS_REQD) => Err(Refusal::Tls),
            (_, reply::ERR_SHUTDOWN) => Err(Refusal::ShuttingDown),
            (option::STRUCTURED_REPLY, _) => {
                self.choose();
                Ok(())
            }
            (_, reply::ERR_UNSUP) => {
                self.begin_output();
                self.choose_by_name();
                Ok(())
            }
            (_, reply::ERR_UNKNOWN) => Err(Refusal::UnknownExport),
            (_, reply::ERR_POLICY) => Err(Refusal::Forbidden),
            _ => Err(Refusal::Refused(kind)),
        }
    }

    /// Asks for the export and its block sizes.
    fn choose(&mut self) {
        let mut data = [0; 4 + MAX_NAME_BYTES + 4];
        let length = self.name_bytes as u32;
        let requests = [0, 1, 0, info::BLOCK_SIZE as u8];
        let name = self.name.get(..self.name_bytes).unwrap_or(&[]);
        let bytes = length.to_be_bytes();
        let all = bytes.iter().chain(name).chain(&requests);
        let mut used = 0usize;
        for (to, from) in data.iter_mut().zip(all) {
            *to = *from;
            used = used.saturating_add(1);
        }
        let option = match self.goal {
            Goal::Transmission => option::GO,
            Goal::Facts => option::INFO,
        };
        self.begin_output();
        self.ask(option, data.get(..used).unwrap_or(&[]));
    }

    /// Enters the transmission phase in the way that every server knows.
    fn choose_by_name(&mut self) {
        let (name, length) = (self.name, self.name_bytes);
        self.ask(option::EXPORT_NAME, name.get(..length).unwrap_or(&[]));
        // What an `OPT_GO` that failed has said does not count.
        self.export = None;
        self.blocks = None;
        self.part = Part::Export;
    }

    fn begin_output(&mut self) {
        // All of the last option was sent, or the server would not have answered it; what was not is
        // dropped, and such a server finds nonsense.
        self.output_bytes = 0;
        self.output_at = 0;
    }

    /// Adds an option to what is to be sent, and awaits its reply.
    fn ask(&mut self, option: u32, data: &[u8]) {
        self.say(&IHAVEOPT.to_be_bytes());
        self.say(&option.to_be_bytes());
        self.say(&(data.len() as u32).to_be_bytes());
        self.say(data);
        self.option = option;
        self.replies = 0;
        self.part = Part::Header;
    }

    fn say(&mut self, bytes: &[u8]) {
        let end = self.output_bytes.saturating_add(bytes.len());
        // There is room: the longest option with the client's flags before it was counted.
        if let Some(room) = self.output.get_mut(self.output_bytes..end) {
            room.copy_from_slice(bytes);
            self.output_bytes = end;
        }
    }
}

impl Part {
    /// Bytes of a part of fixed length.
    const fn fixed(self) -> usize {
        match self {
            Self::Greeting => 18,
            Self::Header => OPTION_REPLY_BYTES,
            Self::InfoType { .. } => 2,
            Self::InfoExport | Self::Export => 10,
            Self::InfoBlocks => 12,
            Self::Skip { .. } | Self::Words { .. } | Self::Zeroes { .. } | Self::Done => 0,
        }
    }
}

/// Checks what a server says about an export.
fn export(bytes: u64, flags: u16) -> Result<(u64, u16), Refusal> {
    let sound = flags & transmission::HAS_FLAGS != 0 && bytes <= i64::MAX as u64;
    sound.then_some((bytes, flags)).ok_or(Refusal::BadExport)
}
