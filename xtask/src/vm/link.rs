// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The host's end of the line to the guest's agent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use atom_tests::link::{self, Action, Event, Reply, Request, PROTOCOL};
use base64::prelude::{Engine, BASE64_STANDARD};

/// The socket of the line, in the machine's folder.
pub const LINE: &str = "link.sock";

/// The socket of QEMU's monitor, in the machine's folder.
pub const MONITOR: &str = "monitor.sock";

/// Where a program wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A line to a guest's agent. Several calls can be under way at a time.
pub struct Link {
    line: Mutex<UnixStream>,
    waiting: Arc<Mutex<Waiting>>,
    hello: Receiver<Event>,
    next: AtomicU64,
}

/// Who waits for which reply; `None` waits for the hello.
#[derive(Default)]
struct Waiting {
    ended: bool,
    senders: HashMap<Option<u64>, Sender<Event>>,
}

/// A request that was sent.
pub struct Call {
    events: Receiver<Event>,
}

/// Why a call has no result.
#[derive(Debug)]
enum NoResult {
    TookTooLong(Duration),
    LineEnded,
}

impl std::fmt::Display for NoResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoResult::TookTooLong(limit) => {
                write!(f, "it was not done within {} s", limit.as_secs())
            }
            NoResult::LineEnded => f.write_str("the guest was gone before it was done"),
        }
    }
}

impl std::error::Error for NoResult {}

/// Whether an error says that a call took longer than its limit.
pub fn is_timeout(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(NoResult::TookTooLong(_)))
}

/// Whether an error says that the guest fell silent, so that its console may tell why.
pub fn is_silence(error: &anyhow::Error) -> bool {
    error.is::<NoResult>()
}

impl Link {
    /// Connects to the line of the machine in `dir`.
    pub fn connect(dir: &Path) -> Result<Self> {
        let stream = connect(dir, LINE)?;
        let (sender, hello) = channel();
        let mut waiting = Waiting::default();
        waiting.senders.insert(None, sender);
        let waiting = Arc::new(Mutex::new(waiting));
        let reader = BufReader::new(stream.try_clone()?);
        let shared = Arc::clone(&waiting);
        std::thread::spawn(move || deliver(reader, &shared));
        Ok(Self {
            line: Mutex::new(stream),
            waiting,
            hello,
            // Replies to a client that was killed must not be taken for ours.
            next: AtomicU64::new(u64::from(std::process::id()) << 20),
        })
    }

    /// Waits for the hello that an agent starts with, and returns the kernel that it runs on.
    pub fn await_hello(&self, limit: Duration) -> Result<Option<String>> {
        match self.hello.recv_timeout(limit) {
            Ok(event) => release(event).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // QEMU's end says more than ours; the caller looks for it.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(limit);
                Ok(None)
            }
        }
    }

    /// Asks an agent that has been there for some time for its hello.
    pub fn ask_hello(&self, limit: Duration) -> Result<String> {
        self.write(b"\n")?;
        let call = self.call(Action::Hello {})?;
        release(call.events.recv_timeout(limit).context("the agent does not answer")?)
    }

    /// Sends a request that is answered.
    pub fn call(&self, action: Action) -> Result<Call> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.ended {
                return Err(NoResult::LineEnded.into());
            }
            waiting.senders.insert(Some(id), sender);
        }
        self.write(&link::encode(&Request { id, action })?)?;
        Ok(Call { events })
    }

    /// Sends a request that has no answer.
    pub fn send(&self, action: Action) -> Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.write(&link::encode(&Request { id, action })?)
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        lock(&self.line).write_all(bytes).context("cannot write to the guest's line")
    }
}

impl Call {
    /// Waits until the request is done, and hands on what it prints. Returns its exit code.
    pub fn finish(self, limit: Duration, mut on_line: impl FnMut(Stream, &str)) -> Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Stdout(line)) => on_line(Stream::Stdout, &line),
                Ok(Event::Stderr(line)) => on_line(Stream::Stderr, &line),
                Ok(Event::Exit(code)) => return Ok(code),
                Ok(Event::Error(error)) => bail!("the agent says: {error}"),
                Ok(Event::Hello { .. }) => {}
                Err(RecvTimeoutError::Timeout) => return Err(NoResult::TookTooLong(limit).into()),
                Err(RecvTimeoutError::Disconnected) => return Err(NoResult::LineEnded.into()),
            }
        }
    }
}

/// Prints what a guest's program prints where ours would. Whoever does not read it any more has seen enough: the program goes on.
pub fn print(stream: Stream, line: &str) {
    let _ = match stream {
        Stream::Stdout => writeln!(std::io::stdout(), "{line}"),
        Stream::Stderr => writeln!(std::io::stderr(), "{line}"),
    };
}

/// The request to run a program.
pub fn exec(argv: &[&str]) -> Action {
    Action::Exec {
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Default::default(),
    }
}

/// The request to write a file.
pub fn put(path: &str, mode: u32, bytes: &[u8]) -> Action {
    Action::Put { path: path.to_owned(), mode, base64: BASE64_STANDARD.encode(bytes) }
}

/// Gives QEMU's monitor commands, one a line. What is returned must live until they are carried out.
pub fn monitor(dir: &Path, commands: &str) -> Result<UnixStream> {
    let mut stream = connect(dir, MONITOR)?;
    stream.write_all(commands.as_bytes())?;
    Ok(stream)
}

/// Connects to a socket in a folder whose path may be longer than a socket's may be.
fn connect(dir: &Path, socket: &str) -> Result<UnixStream> {
    let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    let path = format!("/proc/self/fd/{}/{socket}", folder.as_raw_fd());
    UnixStream::connect(path)
        .with_context(|| format!("cannot connect to {}", dir.join(socket).display()))
}

fn release(event: Event) -> Result<String> {
    match event {
        Event::Hello { protocol, release } => {
            ensure!(
                protocol == PROTOCOL,
                "the guest's agent speaks protocol {protocol} and we speak {PROTOCOL}; start the machine anew"
            );
            Ok(release)
        }
        other => bail!("instead of hello the agent said {other:?}"),
    }
}

/// Reads replies until the line ends; then all who wait are told by the end of their channel.
fn deliver(mut lines: BufReader<UnixStream>, waiting: &Mutex<Waiting>) {
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(count) if count > 0) {
        if let Some(Reply { id, event }) = link::decode::<Reply>(&line) {
            let last = matches!(event, Event::Exit(_) | Event::Error(_));
            let mut waiting = lock(waiting);
            if let Some(sender) = waiting.senders.get(&id) {
                // A caller that gave up has dropped its end.
                let _ = sender.send(event);
            }
            if last {
                waiting.senders.remove(&id);
            }
        }
        line.clear();
    }
    let mut waiting = lock(waiting);
    waiting.ended = true;
    waiting.senders.clear();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_gets_its_own_replies_and_ends_with_the_line() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (one, events_of_one) = channel();
        let (two, events_of_two) = channel();
        lock(&waiting).senders.insert(Some(1), one);
        lock(&waiting).senders.insert(Some(2), two);
        theirs
            .write_all(b"half a line\n{\"id\":1,\"stdout\":\"x\"}\n{\"id\":1,\"exit\":0}\n")
            .unwrap();
        drop(theirs);
        deliver(BufReader::new(ours), &waiting);
        let call = |events| Call { events };
        let mut seen = Vec::new();
        let code = call(events_of_one)
            .finish(Duration::ZERO, |_, line| seen.push(line.to_owned()))
            .unwrap();
        assert_eq!((code, seen), (0, vec!["x".to_owned()]));
        let error = call(events_of_two).finish(Duration::from_secs(1), |_, _| {}).unwrap_err();
        assert!(!is_timeout(&error), "{error}");
    }

    #[test]
    fn silence_is_a_timeout() {
        let (_sender, events) = channel();
        let error = Call { events }.finish(Duration::from_millis(5), |_, _| {}).unwrap_err();
        assert!(is_timeout(&error));
    }
}
