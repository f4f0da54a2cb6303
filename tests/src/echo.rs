// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A TCP server on the loopback that sends back what it gets, and remembers who came and who left.
//!
//! It is the peer of a payload that keeps a connection: a connection that was preserved shows as one accept and no
//! disconnect, however often the payload was replaced.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{anyhow, Context as _, Result};

/// Bytes that one turn takes from a connection.
const PIECE: usize = 4096;

/// A running server. Dropping it ends every connection.
pub struct Echo {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the server has seen, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A connection from this port of the peer.
    Accepted(u16),
    /// The peer has closed it, or it broke.
    Disconnected(u16),
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    seen: Vec<Seen>,
    open: Vec<(u16, TcpStream)>,
    echoed: u64,
    threads: Vec<JoinHandle<()>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Echo {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("echo".to_owned())
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

    /// Connections that were accepted.
    pub fn accepts(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Accepted(_))).count()
    }

    /// Connections that have ended.
    pub fn disconnects(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Disconnected(_))).count()
    }

    /// Bytes that were sent back.
    pub fn echoed(&self) -> u64 {
        self.shared.state().echoed
    }

    /// Ends every connection and returns all that was seen before.
    pub fn stop(mut self) -> Result<Vec<Seen>> {
        let seen = self.seen();
        self.end()?;
        Ok(seen)
    }

    fn end(&mut self) -> Result<()> {
        let Some(acceptor) = self.acceptor.take() else { return Ok(()) };
        let threads = {
            let mut state = self.shared.state();
            state.stopping = true;
            for (_, stream) in &state.open {
                // The peer may have closed it already.
                let _ = stream.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut state.threads)
        };
        // The acceptor waits for a connection; this one tells it to look.
        drop(TcpStream::connect(self.address));
        acceptor.join().map_err(|_| anyhow!("the server panicked"))?;
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a connection's thread panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // There is nobody to tell; `stop` would have.
        let _ = self.end();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let mut state = shared.state();
        if state.stopping {
            return;
        }
        let Ok(stream) = stream else { continue };
        let (Ok(peer), Ok(twin)) = (stream.peer_addr(), stream.try_clone()) else { continue };
        state.seen.push(Seen::Accepted(peer.port()));
        state.open.push((peer.port(), twin));
        let theirs = Arc::clone(shared);
        let spawned = std::thread::Builder::new()
            .name("echo-connection".to_owned())
            .spawn(move || serve(stream, peer.port(), &theirs));
        if let Ok(thread) = spawned {
            state.threads.push(thread);
        }
    }
}

fn serve(mut stream: TcpStream, port: u16, shared: &Shared) {
    let mut piece = [0; PIECE];
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 || stream.write_all(&piece[..count]).is_err() {
            break;
        }
        shared.state().echoed += count as u64;
    }
    let mut state = shared.state();
    state.open.retain(|(open, _)| *open != port);
    if !state.stopping {
        state.seen.push(Seen::Disconnected(port));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait;

    #[test]
    fn what_is_sent_comes_back_and_every_coming_and_going_is_remembered() {
        let echo = Echo::start().expect("a server");
        let mut first = TcpStream::connect(echo.address).expect("a connection");
        let second = TcpStream::connect(echo.address).expect("a connection");
        first.write_all(b"hello").expect("sent");
        let mut back = [0; 5];
        first.read_exact(&mut back).expect("sent back");
        assert_eq!(&back, b"hello");
        let port = first.local_addr().expect("bound").port();
        drop(first);
        wait::until("one has gone", Duration::from_secs(10), || {
            Ok(echo.accepts() == 2 && echo.disconnects() == 1)
        })
        .expect("one has gone");
        let seen = echo.stop().expect("stopped");
        assert_eq!(seen.last(), Some(&Seen::Disconnected(port)));
        drop(second);
    }

    #[test]
    fn the_end_of_the_server_is_no_disconnect_of_a_peer() {
        let echo = Echo::start().expect("a server");
        let mut peer = TcpStream::connect(echo.address).expect("a connection");
        wait::until("it is accepted", Duration::from_secs(10), || Ok(echo.accepts() == 1))
            .expect("it is accepted");
        let seen = echo.stop().expect("stopped");
        assert_eq!(seen.len(), 1);
        assert_eq!(peer.read(&mut [0; 1]).expect("the end of the stream"), 0);
    }
}
