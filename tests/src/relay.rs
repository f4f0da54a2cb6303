// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A TCP relay on the loopback, between a client and a server, that does what networks do: it stalls in the middle of an
//! answer, goes on, breaks, and changes bytes. It also tells who came and who left, so that a connection that lives on is
//! seen to be the same one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{anyhow, Context as _, Result};

/// Bytes that one turn takes from a connection.
const PIECE: usize = 16 << 10;

/// A running relay. Dropping it ends every connection.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the relay has seen of its clients, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A connection from this port.
    Came(u16),
    /// It has ended, by itself or by the server.
    Left(u16),
}

/// What goes to the client.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    /// Bytes that may still pass; `None`: all.
    room: Option<u64>,
    /// Connections whose answers wait for room.
    waiting: usize,
    /// Bytes that have passed.
    passed: u64,
    /// The byte at this place is changed, counted as `passed` is.
    flip_at: Option<u64>,
    /// Bytes that were changed.
    flipped: u64,
}

struct State {
    /// Where new connections lead.
    server: SocketAddr,
    stopping: bool,
    refusing: bool,
    /// How often everything was cut.
    cuts: u64,
    answers: Answers,
    seen: Vec<Seen>,
    open: Vec<(u16, TcpStream, TcpStream)>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Listens on a free port of 127.0.0.1, for the server on port `server` of it.
    pub fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback")?;
        let address = listener.local_addr()?;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, server));
        let state = State {
            server,
            stopping: false,
            refusing: false,
            cuts: 0,
            answers: Answers::default(),
            seen: Vec::new(),
            open: Vec::new(),
            threads: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || accept(&listener, &theirs))?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Connections that came.
    pub fn came(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Came(_))).count()
    }

    /// Connections that have left.
    pub fn left(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Left(_))).count()
    }

    /// Lets so many more bytes of answers pass, and then none.
    pub fn stall_after(&self, bytes: u64) {
        self.shared.state().answers.room = Some(bytes);
    }

    /// Whether an answer waits in the relay, none of whose bytes may pass at the moment.
    pub fn is_stalled(&self) -> bool {
        let state = self.shared.state();
        state.answers.room == Some(0) && state.answers.waiting > 0
    }

    /// Bytes of answers that have passed.
    pub fn passed(&self) -> u64 {
        self.shared.state().answers.passed
    }

    /// Lets everything pass again.
    pub fn go_on(&self) {
        self.shared.state().answers.room = None;
        self.shared.changed.notify_all();
    }

    /// Changes the byte that comes after so many others, once.
    pub fn flip_after(&self, bytes: u64) {
        let mut state = self.shared.state();
        state.answers.flip_at = Some(state.answers.passed + bytes);
    }

    /// Bytes that were changed.
    pub fn flipped(&self) -> u64 {
        self.shared.state().answers.flipped
    }

    /// Ends every connection at once; new ones are welcome.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.cuts += 1;
        for (_, client, server) in &state.open {
            // The other side may have closed it already.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Ends every connection, and leads new ones to the server on another port of 127.0.0.1.
    pub fn lead_to(&self, server: u16) {
        self.shared.state().server = SocketAddr::from((Ipv4Addr::LOCALHOST, server));
        self.cut();
    }

    /// Whether new connections are ended as soon as they come.
    pub fn refuse(&self, refusing: bool) {
        self.shared.state().refusing = refusing;
    }

    fn end(&mut self) -> Result<()> {
        let Some(acceptor) = self.acceptor.take() else { return Ok(()) };
        let threads = {
            let mut state = self.shared.state();
            state.stopping = true;
            std::mem::take(&mut state.threads)
        };
        self.cut();
        // The acceptor waits for a connection; this one tells it to look.
        drop(TcpStream::connect(self.address));
        acceptor.join().map_err(|_| anyhow!("the relay panicked"))?;
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a connection's thread panicked"))?;
        }
        Ok(())
    }

    /// Ends every connection and returns all that was seen before.
    pub fn stop(mut self) -> Result<Vec<Seen>> {
        let seen = self.seen();
        self.end()?;
        Ok(seen)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // There is nobody to tell; `stop` would have.
        let _ = self.end();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.state().stopping {
            return;
        }
        let Ok(client) = client else { continue };
        let Ok(peer) = client.peer_addr() else { continue };
        let mut state = shared.state();
        state.seen.push(Seen::Came(peer.port()));
        // One that cannot be served is dropped, and with it its connection.
        let served = !state.refusing && serve(client, peer.port(), shared, &mut state).is_ok();
        if !served {
            state.seen.push(Seen::Left(peer.port()));
        }
    }
}

fn serve(client: TcpStream, port: u16, shared: &Arc<Shared>, state: &mut State) -> Result<()> {
    let server = TcpStream::connect(state.server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    state.open.push((port, client.try_clone()?, server.try_clone()?));
    let asking = std::thread::Builder::new()
        .name("relay-asks".to_owned())
        .spawn(move || requests(from, to))?;
    state.threads.push(asking);
    let (theirs, cuts) = (Arc::clone(shared), state.cuts);
    let answering = std::thread::Builder::new()
        .name("relay-answers".to_owned())
        .spawn(move || answers(server, client, port, cuts, &theirs))?;
    state.threads.push(answering);
    Ok(())
}

/// Hands on what the client says, until either side ends. Then the other side is ended too.
fn requests(mut client: TcpStream, mut server: TcpStream) {
    let mut piece = vec![0; PIECE];
    while let Ok(count) = client.read(&mut piece) {
        if count == 0 || server.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

/// Hands on what the server says, as far as it may pass. `cuts` is how often everything was cut before it came.
fn answers(mut server: TcpStream, mut client: TcpStream, port: u16, cuts: u64, shared: &Shared) {
    let mut piece = vec![0; PIECE];
    'connection: while let Ok(count) = server.read(&mut piece) {
        let mut rest = &mut piece[..count];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let Some(length) = let_pass(rest, shared, cuts) else { break 'connection };
            if client.write_all(&rest[..length]).is_err() {
                break 'connection;
            }
            rest = &mut rest[length..];
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let mut state = shared.state();
    state.open.retain(|(open, ..)| *open != port);
    if !state.stopping {
        state.seen.push(Seen::Left(port));
    }
}

/// Waits until some of the bytes may pass, changes the one that is to be changed, and says how many may. `None` once the
/// connection was cut.
fn let_pass(bytes: &mut [u8], shared: &Shared, cuts: u64) -> Option<usize> {
    let mut state = shared.state();
    while state.answers.room == Some(0) {
        if state.stopping || state.cuts != cuts {
            return None;
        }
        state.answers.waiting += 1;
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.answers.waiting -= 1;
    }
    let answers = &mut state.answers;
    let room = answers.room.unwrap_or(u64::MAX);
    let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
    answers.room = answers.room.map(|room| room - length as u64);
    let place = answers.flip_at.and_then(|at| at.checked_sub(answers.passed));
    let place = place.and_then(|place| usize::try_from(place).ok());
    if let Some(byte) = place.and_then(|place| bytes[..length].get_mut(place)) {
        *byte ^= 0x40;
        answers.flip_at = None;
        answers.flipped += 1;
    }
    answers.passed += length as u64;
    Some(length)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::echo::Echo;
    use crate::wait;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn say(stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
        stream.write_all(text).expect("sent");
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).expect("sent back");
        back
    }

    #[test]
    fn an_answer_stalls_in_its_middle_and_goes_on() {
        let echo = Echo::start().expect("a server");
        let relay = Relay::start(echo.port()).expect("a relay");
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        assert_eq!(say(&mut client, b"hello"), b"hello");
        relay.stall_after(3);
        client.write_all(b"abcdef").expect("sent");
        wait::until("it stalls", PATIENCE, || Ok(relay.is_stalled())).expect("it stalls");
        assert_eq!(relay.passed(), 8);
        relay.go_on();
        let mut back = [0; 6];
        client.read_exact(&mut back).expect("sent back");
        assert_eq!(&back, b"abcdef");
        assert_eq!((relay.came(), relay.left()), (1, 0));
    }

    #[test]
    fn connections_are_led_to_another_server() {
        let (one, other) = (Echo::start().expect("a server"), Echo::start().expect("another"));
        let relay = Relay::start(one.port()).expect("a relay");
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        assert_eq!(say(&mut client, b"hello"), b"hello");
        relay.lead_to(other.port());
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "the old one has ended");
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        assert_eq!(say(&mut client, b"hello"), b"hello");
        drop(one);
        assert_eq!(say(&mut client, b"hello"), b"hello");
    }

    #[test]
    fn one_byte_is_changed_and_no_other() {
        let echo = Echo::start().expect("a server");
        let relay = Relay::start(echo.port()).expect("a relay");
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        relay.flip_after(1);
        assert_eq!(say(&mut client, b"aaa"), [b'a', b'a' ^ 0x40, b'a']);
        assert_eq!(say(&mut client, b"aaa"), b"aaa");
        assert_eq!(relay.flipped(), 1);
    }

    #[test]
    fn a_cut_ends_what_is_there_also_when_it_is_stalled_and_new_ones_come() {
        let echo = Echo::start().expect("a server");
        let relay = Relay::start(echo.port()).expect("a relay");
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        relay.stall_after(0);
        client.write_all(b"x").expect("sent");
        wait::until("it stalls", PATIENCE, || Ok(relay.is_stalled())).expect("it stalls");
        relay.cut();
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
        wait::until("it has left", PATIENCE, || Ok(relay.left() == 1)).expect("it has left");
        relay.go_on();
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        assert_eq!(say(&mut client, b"again"), b"again");
        let seen = relay.stop().expect("stopped");
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn one_that_is_refused_is_seen_to_come_and_leave() {
        let echo = Echo::start().expect("a server");
        let relay = Relay::start(echo.port()).expect("a relay");
        relay.refuse(true);
        let mut client = TcpStream::connect(relay.address).expect("a connection");
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
        assert_eq!((relay.came(), relay.left()), (1, 1));
        assert_eq!(echo.accepts(), 0);
    }
}
