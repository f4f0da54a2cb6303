// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The numbers and headers of the NBD protocol. Pure.
//!
//! Names are those of the specification, `doc/proto.md` of the NBD project, without their prefix `NBD_`.
//! All numbers on the wire are big-endian.

use crate::abi::request::{op, status};

/// Begins what a server says first.
pub const INIT_PASSWD: u64 = 0x4e42_444d_4147_4943;
/// Begins an option, and follows [`INIT_PASSWD`] of a newstyle server.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Follows [`INIT_PASSWD`] of an oldstyle server.
pub const OLDSTYLE: u64 = 0x0000_4202_8186_1253;
/// Begins the reply to an option.
pub const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Begins a request.
pub const REQUEST: u32 = 0x2560_9513;
/// Begins a simple reply.
pub const SIMPLE_REPLY: u32 = 0x6744_6698;
/// Begins a chunk of a structured reply.
pub const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Bytes of a request before its data.
pub const REQUEST_BYTES: usize = 28;
/// Bytes of a simple reply before its data.
pub const SIMPLE_BYTES: usize = 16;
/// Bytes of a chunk of a structured reply before its payload.
pub const CHUNK_BYTES: usize = 20;
/// Bytes of an option before its data.
pub const OPTION_BYTES: usize = 16;
/// Bytes of a reply to an option before its data.
pub const OPTION_REPLY_BYTES: usize = 20;
/// Longest string, in bytes.
pub const MAX_STRING_BYTES: u32 = 4096;

/// Handshake flags, 16 bits of the server and 32 of the client.
pub mod handshake_flag {
    /// Both speak fixed newstyle.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// The 124 zeroes behind the reply to `OPT_EXPORT_NAME` are left out.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options.
pub mod option {
    /// Begins the transmission phase, without a reply that could be an error.
    pub const EXPORT_NAME: u32 = 1;
    /// Ends the session.
    pub const ABORT: u32 = 2;
    /// Says what `GO` would say.
    pub const INFO: u32 = 6;
    /// Begins the transmission phase.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
}

/// Replies to options.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One of [`super::info`].
    pub const INFO: u32 = 3;
    /// Set in all errors.
    pub const ERROR: u32 = 1 << 31;
    /// The server does not know the option.
    pub const ERR_UNSUP: u32 = ERROR | 1;
    /// The server's policy forbids it.
    pub const ERR_POLICY: u32 = ERROR | 2;
    /// The server takes it for malformed.
    pub const ERR_INVALID: u32 = ERROR | 3;
    /// The server wants TLS first.
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    /// The server is shutting down.
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
}

/// Kinds of information about an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Nothing can be written.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `CMD_FLUSH` is known.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// `CMD_FLAG_FUA` is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// The medium rotates.
    pub const ROTATIONAL: u16 = 1 << 4;
    /// `CMD_TRIM` is known.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `CMD_WRITE_ZEROES` is known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// A flush on one connection covers what was written on the others.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Requests.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the data follows the header.
    pub const WRITE: u16 = 1;
    /// End of the session; has no reply.
    pub const DISC: u16 = 2;
    /// Flush.
    pub const FLUSH: u16 = 3;
    /// Discard.
    pub const TRIM: u16 = 4;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 6;

    /// Durable before the reply.
    pub const FLAG_FUA: u16 = 1 << 0;
    /// Zeroes must not deallocate.
    pub const FLAG_NO_HOLE: u16 = 1 << 1;
}

/// Chunks of structured replies.
pub mod chunk {
    /// Flag: the last one of a reply.
    pub const FLAG_DONE: u16 = 1 << 0;
    /// Without content.
    pub const NONE: u16 = 0;
    /// Data from an offset on.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeroes from an offset on.
    pub const OFFSET_HOLE: u16 = 2;
    /// Set in all errors.
    pub const ERROR: u16 = 1 << 15;
    /// An error at an offset.
    pub const ERROR_OFFSET: u16 = ERROR | 2;
}

/// Errors of replies.
pub mod error {
    /// Not permitted.
    pub const EPERM: u32 = 1;
    /// I/O error.
    pub const EIO: u32 = 5;
    /// The server has no memory.
    pub const ENOMEM: u32 = 12;
    /// Invalid request.
    pub const EINVAL: u32 = 22;
    /// No space left.
    pub const ENOSPC: u32 = 28;
    /// Read-only; not in the specification, sent by servers that pass their errno on.
    pub const EROFS: u32 = 30;
    /// No such data; as above.
    pub const ENODATA: u32 = 61;
    /// Too long.
    pub const EOVERFLOW: u32 = 75;
    /// Not supported.
    pub const ENOTSUP: u32 = 95;
    /// The server is shutting down: the request is to be sent to another, or to it when it is back.
    pub const ESHUTDOWN: u32 = 108;
}

/// One request as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// One of [`command`].
    pub command: u16,
    /// Flags of [`command`].
    pub flags: u16,
    /// Comes back in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u32,
}

impl Request {
    /// The request for one operation of the block layer, one of [`op`]; `None` for one that the protocol
    /// does not have.
    ///
    /// `sector` is of 512 bytes; `fua` is for exports that know it, and for what writes.
    pub fn new(
        code: u8,
        sector: u64,
        bytes: u32,
        fua: bool,
        nounmap: bool,
        cookie: u64,
    ) -> Option<Self> {
        let offset = sector.checked_mul(512)?;
        let durable = if fua { command::FLAG_FUA } else { 0 };
        let (command, flags) = match code {
            op::READ => (command::READ, 0),
            op::WRITE => (command::WRITE, durable),
            op::FLUSH => {
                return Some(Self {
                    command: command::FLUSH,
                    flags: 0,
                    cookie,
                    offset: 0,
                    bytes: 0,
                })
            }
            op::DISCARD => (command::TRIM, durable),
            op::WRITE_ZEROES if nounmap => (command::WRITE_ZEROES, durable | command::FLAG_NO_HOLE),
            op::WRITE_ZEROES => (command::WRITE_ZEROES, durable),
            _ => return None,
        };
        Some(Self { command, flags, cookie, offset, bytes })
    }

    /// The end of a session.
    pub const DISCONNECT: Self =
        Self { command: command::DISC, flags: 0, cookie: 0, offset: 0, bytes: 0 };

    /// The bytes on the wire.
    pub fn to_bytes(self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        let fields: [&[u8]; 6] = [
            &REQUEST.to_be_bytes(),
            &self.flags.to_be_bytes(),
            &self.command.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.bytes.to_be_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}

/// What an error of a reply means for the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The request ends with one of [`status`].
    Ends(u32),
    /// The connection is given up, and the request is sent again.
    SendAgain,
}

/// The verdict on a reply to an operation, one of [`op`].
pub fn verdict(code: u8, error: u32) -> Verdict {
    let hint = matches!(code, op::DISCARD | op::WRITE_ZEROES);
    Verdict::Ends(match error {
        0 => status::OK,
        error::ESHUTDOWN => return Verdict::SendAgain,
        error::ENOSPC => status::NO_SPACE,
        error::EINVAL | error::ENOTSUP | error::EOVERFLOW if hint => status::NOT_SUPPORTED,
        error::ENODATA if code == op::READ => status::MEDIUM,
        _ => status::IO,
    })
}

/// Takes big-endian numbers off the front of bytes whose length was checked; what is missing reads as zero.
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl Wire<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        if let Some((head, rest)) = self.0.split_at_checked(N) {
            array.copy_from_slice(head);
            self.0 = rest;
        }
        array
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }
}
