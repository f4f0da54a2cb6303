// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The stream of replies of an NBD server. Pure.
//!
//! Bytes go in as they come, and events come out; where the bytes are split makes no difference. The
//! data of a read does not go through here: the parser says that it follows, and is told how much of it
//! was taken. Between two calls its position is less than 64 bytes, which another payload continues from.
//!
//! It does not know the requests. Whether a cookie is one, and whether a chunk lies within what was asked
//! for, is for its owner to judge, before any data is taken.

use core::fmt;

use super::wire::{
    chunk, Wire, CHUNK_BYTES, MAX_STRING_BYTES, SIMPLE_BYTES, SIMPLE_REPLY, STRUCTURED_REPLY,
};

/// Longest part whose content matters: the header of a chunk and what is fixed of its payload.
const PART_BYTES: usize = CHUNK_BYTES + 12;
/// Bytes of a position.
pub const POSITION_BYTES: usize = 24 + PART_BYTES;

/// What a reply says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A simple reply. When it is one to a read without an error, the data follows, and the owner says so
    /// by [`Parser::expect`].
    Simple {
        /// Of the request.
        cookie: u64,
        /// One of [`super::wire::error`], 0 for none.
        error: u32,
    },
    /// A chunk with data, which follows.
    Data {
        /// Of the request.
        cookie: u64,
        /// First byte, on the export.
        offset: u64,
        /// Its length, at least 1.
        bytes: u32,
        /// Whether the reply is over with its last byte.
        done: bool,
    },
    /// A chunk of zeroes.
    Hole {
        /// Of the request.
        cookie: u64,
        /// First byte, on the export.
        offset: u64,
        /// Their number, at least 1.
        bytes: u32,
        /// Whether the reply is over.
        done: bool,
    },
    /// The end of a reply.
    End {
        /// Of the request.
        cookie: u64,
    },
    /// A chunk with an error.
    Failed {
        /// Of the request.
        cookie: u64,
        /// One of [`super::wire::error`], not 0.
        error: u32,
        /// Whether the reply is over.
        done: bool,
    },
}

/// What no server may send. The connection is of no use afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A reply does not begin as one does.
    Magic(u32),
    /// A structured reply, though none was agreed on.
    NotAgreed,
    /// A chunk of an unknown type.
    Type(u16),
    /// A chunk whose length, in bytes, its type cannot have.
    Length(u32),
    /// An error chunk without an error.
    NoError,
    /// A last chunk that says that it is not the last.
    NotDone,
    /// A chunk with bytes that another one has brought.
    Overlap,
    /// Chunks with more gaps between them than can be kept in mind.
    Scattered,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(found) => write!(f, "a reply begins with {found:#x}"),
            Self::NotAgreed => f.write_str("a structured reply was not agreed on"),
            Self::Type(kind) => write!(f, "a chunk has the type {kind:#x}"),
            Self::Length(bytes) => write!(f, "a chunk has a length of {bytes}"),
            Self::NoError => f.write_str("an error chunk has no error"),
            Self::NotDone => f.write_str("an empty chunk is not the last"),
            Self::Overlap => f.write_str("chunks of a read overlap"),
            Self::Scattered => f.write_str("chunks of a read are scattered"),
        }
    }
}

/// Most pieces with gaps between them in which a read may be answered at a time.
pub const MAX_SCATTERED: usize = 8;

/// Which bytes of a read its chunks have brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// The first and the one behind the last byte of each piece, in any order. No two touch.
    pieces: [(u32, u32); MAX_SCATTERED],
    count: usize,
}

impl Coverage {
    /// Nothing.
    pub const NONE: Self = Self { pieces: [(0, 0); MAX_SCATTERED], count: 0 };

    /// Adds a chunk of so many bytes, counted from the start of the read.
    pub fn add(&mut self, from: u32, bytes: u32) -> Result<(), Fault> {
        let end = from.checked_add(bytes).ok_or(Fault::Length(bytes))?;
        let mut whole = (from, end);
        // Most reads are answered by one chunk.
        if self.count == 0 {
            return self.keep(whole);
        }
        let mut next = Self::NONE;
        for &(start, stop) in self.pieces.iter().take(self.count) {
            match () {
                () if start < end && from < stop => return Err(Fault::Overlap),
                () if stop == from => whole.0 = start,
                () if start == end => whole.1 = stop,
                () => next.keep((start, stop))?,
            }
        }
        next.keep(whole)?;
        *self = next;
        Ok(())
    }

    fn keep(&mut self, piece: (u32, u32)) -> Result<(), Fault> {
        *self.pieces.get_mut(self.count).ok_or(Fault::Scattered)? = piece;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Whether every byte of a read of so many has come.
    pub fn is_whole(&self, bytes: u32) -> bool {
        self.count == 1 && self.pieces.first() == Some(&(0, bytes))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In a part of fixed length.
    Part,
    /// In data that the owner takes.
    Data { cookie: u64, offset: u64, left: u32, done: bool },
    /// In bytes without meaning, behind which the error is known.
    Skip { cookie: u64, error: u32, left: u32, done: bool },
}

/// A position in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parser {
    structured: bool,
    state: State,
    have: [u8; PART_BYTES],
    have_bytes: usize,
}

impl Parser {
    /// Before the first reply.
    pub const fn new(structured: bool) -> Self {
        Self { structured, state: State::Part, have: [0; PART_BYTES], have_bytes: 0 }
    }

    /// Whether structured replies were agreed on.
    pub const fn structured(&self) -> bool {
        self.structured
    }

    /// Whether the next byte begins a reply.
    pub fn between_replies(&self) -> bool {
        self.state == State::Part && self.have_bytes == 0
    }

    /// The data that comes next: cookie, first byte on the export and length.
    pub fn data(&self) -> Option<(u64, u64, u32)> {
        match self.state {
            State::Data { cookie, offset, left, .. } => Some((cookie, offset, left)),
            _ => None,
        }
    }

    /// Bytes of the replies to reads up to where the data begins. No reply is so short that its data, or the data of
    /// the next one, would begin before.
    pub const fn head_bytes(&self) -> usize {
        if self.structured {
            CHUNK_BYTES + 8
        } else {
            SIMPLE_BYTES
        }
    }

    /// Bytes until something is known; 0 while data is to be taken. What is received beyond them may
    /// belong to data or to the next reply.
    pub fn wanted(&self) -> usize {
        match self.state {
            State::Part => self.fixed().saturating_sub(self.have_bytes),
            State::Skip { left, .. } => left as usize,
            State::Data { .. } => 0,
        }
    }

    /// The simple reply that came last is followed by data: of this cookie, from `offset`.
    pub fn expect(&mut self, cookie: u64, offset: u64, bytes: u32) {
        if bytes > 0 {
            self.state = State::Data { cookie, offset, left: bytes, done: true };
        }
    }

    /// So many bytes of the data were taken. Returns the cookie when this was the end of a reply.
    pub fn took(&mut self, bytes: u32) -> Option<u64> {
        let State::Data { cookie, offset, left, done } = self.state else {
            return None;
        };
        let left = left.saturating_sub(bytes);
        if left > 0 {
            let offset = offset.saturating_add(u64::from(bytes));
            self.state = State::Data { cookie, offset, left, done };
            return None;
        }
        self.state = State::Part;
        done.then_some(cookie)
    }

    /// Takes bytes up to the first event, and returns how many. Takes none while data is to be taken.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(usize, Option<Event>), Fault> {
        let all = bytes.len();
        loop {
            let length = bytes.len().min(self.wanted());
            let Some((head, rest)) =
                bytes.split_at_checked(length).filter(|(head, _)| !head.is_empty())
            else {
                return Ok((all.saturating_sub(bytes.len()), None));
            };
            bytes = rest;
            let event = self.take(head)?;
            if event.is_some() {
                return Ok((all.saturating_sub(bytes.len()), event));
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<Event>, Fault> {
        if let State::Skip { cookie, error, left, done } = self.state {
            // `wanted` has bounded the length.
            let left = left.saturating_sub(bytes.len() as u32);
            if left > 0 {
                self.state = State::Skip { cookie, error, left, done };
                return Ok(None);
            }
            self.state = State::Part;
            return Ok(Some(Event::Failed { cookie, error, done }));
        }
        let end = self.have_bytes.saturating_add(bytes.len());
        if let Some(room) = self.have.get_mut(self.have_bytes..end) {
            room.copy_from_slice(bytes);
        }
        self.have_bytes = end;
        self.check()?;
        if end < self.fixed() {
            return Ok(None);
        }
        let event = self.part_is_over()?;
        self.have = [0; PART_BYTES];
        self.have_bytes = 0;
        Ok(event)
    }

    /// Bytes of the part as far as is known: the magic first, then the header, then what is fixed of the
    /// payload.
    fn fixed(&self) -> usize {
        match self.have_bytes {
            0..4 => 4,
            _ if self.magic() == SIMPLE_REPLY => SIMPLE_BYTES,
            4..CHUNK_BYTES => CHUNK_BYTES,
            _ => CHUNK_BYTES.saturating_add(match self.kind() {
                chunk::NONE => 0,
                chunk::OFFSET_DATA => 8,
                chunk::OFFSET_HOLE => 12,
                _ => 6,
            }),
        }
    }

    fn magic(&self) -> u32 {
        Wire(&self.have).u32()
    }

    /// Flags, type, cookie and length of a chunk.
    fn header(&self) -> (u16, u16, u64, u32) {
        let mut wire = Wire(self.have.get(4..).unwrap_or(&[]));
        (wire.u16(), wire.u16(), wire.u64(), wire.u32())
    }

    fn kind(&self) -> u16 {
        self.header().1
    }

    /// Judges what is known of a part, so that nothing is waited for that cannot be right.
    fn check(&self) -> Result<(), Fault> {
        if self.have_bytes == 4 {
            return match self.magic() {
                SIMPLE_REPLY => Ok(()),
                STRUCTURED_REPLY if self.structured => Ok(()),
                STRUCTURED_REPLY => Err(Fault::NotAgreed),
                other => Err(Fault::Magic(other)),
            };
        }
        if self.have_bytes != CHUNK_BYTES || self.magic() == SIMPLE_REPLY {
            return Ok(());
        }
        let (flags, kind, _, length) = self.header();
        let sound = match kind {
            chunk::NONE if flags & chunk::FLAG_DONE == 0 => return Err(Fault::NotDone),
            chunk::NONE => length == 0,
            chunk::OFFSET_DATA => length > 8,
            chunk::OFFSET_HOLE => length == 12,
            // An unknown error chunk may have more behind its message than one with an offset.
            kind if kind & chunk::ERROR != 0 => {
                let least = if kind == chunk::ERROR_OFFSET { 14 } else { 6 };
                (least..=MAX_STRING_BYTES.saturating_add(64)).contains(&length)
            }
            unknown => return Err(Fault::Type(unknown)),
        };
        sound.then_some(()).ok_or(Fault::Length(length))
    }

    /// `have` holds a part from end to end.
    fn part_is_over(&mut self) -> Result<Option<Event>, Fault> {
        let have = self.have;
        if self.magic() == SIMPLE_REPLY {
            let mut wire = Wire(have.get(4..).unwrap_or(&[]));
            let (error, cookie) = (wire.u32(), wire.u64());
            return Ok(Some(Event::Simple { cookie, error }));
        }
        let (flags, kind, cookie, length) = self.header();
        let done = flags & chunk::FLAG_DONE != 0;
        let mut wire = Wire(have.get(CHUNK_BYTES..).unwrap_or(&[]));
        Ok(match kind {
            chunk::NONE => Some(Event::End { cookie }),
            chunk::OFFSET_DATA => {
                let (offset, bytes) = (wire.u64(), length.saturating_sub(8));
                self.state = State::Data { cookie, offset, left: bytes, done };
                Some(Event::Data { cookie, offset, bytes, done })
            }
            chunk::OFFSET_HOLE => {
                let (offset, bytes) = (wire.u64(), wire.u32());
                if bytes == 0 {
                    return Err(Fault::Length(0));
                }
                Some(Event::Hole { cookie, offset, bytes, done })
            }
            _ => {
                let (error, words) = (wire.u32(), u32::from(wire.u16()));
                let left = length.saturating_sub(6);
                let behind = if kind == chunk::ERROR_OFFSET { 8 } else { 0 };
                if words.saturating_add(behind) > left || words > MAX_STRING_BYTES {
                    return Err(Fault::Length(length));
                }
                if error == 0 {
                    return Err(Fault::NoError);
                }
                if left == 0 {
                    return Ok(Some(Event::Failed { cookie, error, done }));
                }
                self.state = State::Skip { cookie, error, left, done };
                None
            }
        })
    }

    /// The position, for an image. Little-endian, as all images.
    pub fn to_bytes(self) -> [u8; POSITION_BYTES] {
        let (state, cookie, second, left, done) = match self.state {
            State::Part => (0u32, 0, 0, 0, false),
            State::Data { cookie, offset, left, done } => (1, cookie, offset, left, done),
            State::Skip { cookie, error, left, done } => (2, cookie, u64::from(error), left, done),
        };
        let bits = state | u32::from(done) << 8 | u32::from(self.structured) << 9;
        // `have_bytes` is at most `PART_BYTES`.
        let bits = bits | (self.have_bytes as u32) << 16;
        let fields: [&[u8]; 5] = [
            &bits.to_le_bytes(),
            &cookie.to_le_bytes(),
            &second.to_le_bytes(),
            &left.to_le_bytes(),
            &self.have,
        ];
        let mut bytes = [0; POSITION_BYTES];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Reads a position from hostile bytes; `None` for what cannot be one.
    pub fn from_bytes(bytes: &[u8; POSITION_BYTES]) -> Option<Self> {
        let mut fields = crate::abi::image::Fields::new(bytes);
        let bits = fields.u32().ok()?;
        let (cookie, second) = (fields.u64().ok()?, fields.u64().ok()?);
        let left = fields.u32().ok()?;
        let whole: [u8; PART_BYTES] = fields.array().ok()?;
        let (done, structured) = (bits & 1 << 8 != 0, bits & 1 << 9 != 0);
        let length = (bits >> 16) as usize;
        let begun = Self::new(structured);
        let parser = match bits & 0xff {
            0 if length < PART_BYTES => {
                // What was read before leads there again, or it cannot have been read.
                let mut parser = begun;
                let (taken, event) = parser.push(whole.get(..length)?).ok()?;
                (taken == length && event.is_none() && parser.have_bytes == length)
                    .then_some(parser)?
            }
            1 if left > 0 && length == 0 => {
                Self { state: State::Data { cookie, offset: second, left, done }, ..begun }
            }
            2 if left > 0 && length == 0 && structured => {
                let error = u32::try_from(second).ok().filter(|error| *error != 0)?;
                (left <= MAX_STRING_BYTES.saturating_add(64)).then_some(())?;
                Self { state: State::Skip { cookie, error, left, done }, ..begun }
            }
            _ => return None,
        };
        Some(parser)
    }
}
