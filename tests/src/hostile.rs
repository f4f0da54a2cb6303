// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Servers that nobody should trust: each behaves in one wrong way on every connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, Context as _, Result};

use crate::random::Random;

/// `NBDMAGIC`, `IHAVEOPT`, and what a reply to an option begins with.
const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const REPLY: u64 = 0x0003_e889_0455_65a9;
/// `NBD_OPT_GO`; `NBD_REP_ACK`, `NBD_REP_INFO`, `NBD_REP_ERR_UNSUP`; `NBD_INFO_EXPORT`.
const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;
const UNSUPPORTED: u32 = 0x8000_0001;
/// How long a connection is listened to before the server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The connection is accepted, and nothing is ever said.
    Silent,
    /// The connection ends at once.
    Closes,
    /// Noise instead of a handshake.
    Noise,
    /// Noise without end instead of a handshake.
    EndlessNoise,
    /// A handshake of the old style.
    OldStyle,
    /// A reply to an option that announces 4 GiB of data.
    HugeReply,
    /// Reply after reply to one option, without an end to them.
    EndlessReplies,
    /// An export of no size.
    Empty,
    /// An export of 2^64 - 1 bytes.
    Enormous,
    /// A right handshake, and noise in the place of every reply.
    NoiseAfterHandshake,
    /// A right handshake, and a reply to a request that was never made.
    UnknownCookie,
    /// A right handshake, and a structured reply of 4 GiB.
    HugeChunk,
}

impl Wrong {
    /// All that never come to an export.
    pub const BEFORE: [Self; 9] = [
        Self::Silent,
        Self::Closes,
        Self::Noise,
        Self::EndlessNoise,
        Self::OldStyle,
        Self::HugeReply,
        Self::EndlessReplies,
        Self::Empty,
        Self::Enormous,
    ];
    /// All that come to an export, and then answer wrongly.
    pub const AFTER: [Self; 3] = [Self::NoiseAfterHandshake, Self::UnknownCookie, Self::HugeChunk];
}

/// A hostile server.
pub struct Hostile {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    came: AtomicU64,
}

impl Hostile {
    /// Listens on a free port of 127.0.0.1. Its noise follows from the seed.
    pub fn start(wrong: Wrong, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new().name("hostile".to_owned()).spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming().flatten() {
                if theirs.stop.load(Ordering::SeqCst) {
                    break;
                }
                let number = theirs.came.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&theirs);
                threads.push(std::thread::spawn(move || {
                    // That the client leaves is what it should do.
                    let _ = serve(stream, wrong, &mut Random::new(seed ^ number), &shared);
                }));
            }
            for thread in threads {
                let _ = thread.join();
            }
        })?;
        Ok(Self { port, shared, acceptor: Some(acceptor) })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that came.
    pub fn came(&self) -> u64 {
        self.shared.came.load(Ordering::SeqCst)
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(acceptor) = self.acceptor.take() else { return Ok(()) };
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        acceptor.join().map_err(|_| anyhow!("the hostile server panicked"))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // There is nobody to tell; `stop` would have.
        let _ = self.end();
    }
}

fn serve(mut stream: TcpStream, wrong: Wrong, random: &mut Random, shared: &Shared) -> Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    match wrong {
        Wrong::Closes => return Ok(()),
        Wrong::Silent => return listen(&mut stream, shared),
        Wrong::Noise => {
            stream.write_all(&noise(random, 4096))?;
            return listen(&mut stream, shared);
        }
        Wrong::EndlessNoise => return endless(&mut stream, shared, || noise(random, 4096)),
        Wrong::OldStyle => {
            let size = (64u64 << 20).to_be_bytes();
            let old = 0x0000_4202_8186_1253u64.to_be_bytes();
            stream.write_all(&[&MAGIC.to_be_bytes()[..], &old, &size, &[0; 128]].concat())?;
            return listen(&mut stream, shared);
        }
        _ => {}
    }
    // Fixed newstyle, and no zeroes.
    stream.write_all(&[&MAGIC.to_be_bytes()[..], &OPTION.to_be_bytes(), &[0, 3]].concat())?;
    exact(&mut stream, 4, shared)?;
    loop {
        let header = exact(&mut stream, 16, shared)?;
        let number = |from: usize| -> u32 {
            let bytes = header.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        let (option, length) = (number(8), number(12));
        exact(&mut stream, length as usize, shared)?;
        let info =
            |size: u64| [&[0, 0][..], &size.to_be_bytes(), &0x0065u16.to_be_bytes()].concat();
        match (wrong, option) {
            (Wrong::HugeReply, _) => {
                stream.write_all(&reply(option, INFO, u32::MAX, &[]))?;
                return endless(&mut stream, shared, || vec![0; 4096]);
            }
            (Wrong::EndlessReplies, _) => {
                let one = reply(option, INFO, 12, &info(64 << 20));
                return endless(&mut stream, shared, || one.clone());
            }
            (_, GO) => {
                let size = match wrong {
                    Wrong::Empty => 0,
                    Wrong::Enormous => u64::MAX,
                    _ => 64 << 20,
                };
                stream.write_all(&reply(option, INFO, 12, &info(size)))?;
                stream.write_all(&reply(option, ACK, 0, &[]))?;
                break;
            }
            // Structured replies are accepted where a wrong one is to follow.
            (Wrong::HugeChunk, 8) => stream.write_all(&reply(option, ACK, 0, &[]))?,
            _ => stream.write_all(&reply(option, UNSUPPORTED, 0, &[]))?,
        }
    }
    loop {
        let request = exact(&mut stream, 28, shared)?;
        let cookie = request.get(8..16).unwrap_or_default();
        let answer = match wrong {
            Wrong::NoiseAfterHandshake => noise(random, 64),
            Wrong::HugeChunk => {
                // NBD_REPLY_TYPE_OFFSET_DATA, done.
                let head = [0x668e_33efu32.to_be_bytes(), [0, 1, 0, 1]].concat();
                [&head[..], cookie, &u32::MAX.to_be_bytes(), &[0; 256]].concat()
            }
            _ => {
                let head = [0x6744_6698u32.to_be_bytes(), [0; 4]].concat();
                let other: Vec<u8> = cookie.iter().map(|byte| byte ^ 0x5a).collect();
                [head, other].concat()
            }
        };
        stream.write_all(&answer)?;
    }
}

fn reply(option: u32, kind: u32, length: u32, data: &[u8]) -> Vec<u8> {
    let numbers = [option, kind, length].map(u32::to_be_bytes).concat();
    [&REPLY.to_be_bytes()[..], &numbers, data].concat()
}

fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| random.number() as u8).collect()
}

/// Reads so many bytes, as long as nobody wants us to stop.
fn exact(stream: &mut TcpStream, bytes: usize, shared: &Shared) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while all.len() < bytes {
        let most = piece.len().min(bytes - all.len());
        match stream.read(&mut piece[..most]) {
            Ok(0) => return Err(anyhow!("the client has left")),
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if is_timeout(&error) && !shared.stop.load(Ordering::SeqCst) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// Listens until the client leaves.
fn listen(stream: &mut TcpStream, shared: &Shared) -> Result<()> {
    loop {
        exact(stream, 1, shared)?;
    }
}

/// Speaks until the client leaves.
fn endless(
    stream: &mut TcpStream,
    shared: &Shared,
    mut what: impl FnMut() -> Vec<u8>,
) -> Result<()> {
    while !shared.stop.load(Ordering::SeqCst) {
        match stream.write_all(&what()) {
            Err(error) if !is_timeout(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
