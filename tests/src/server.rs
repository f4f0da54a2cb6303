// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The NBD servers that people use: nbdkit, nbd-server and qemu-nbd, as processes of this machine.
//!
//! A server listens once the kernel lists its socket as listening, and serves once it waits for somebody to come as well:
//! between the two nbd-server looks for large primes, for as long as chance will have it. Nobody connects to find that
//! out: what a server has seen of its clients is what a scenario judges.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::wait;

/// How long a server may take until it serves: nbd-server has a tenth of a second to a minute on an emulated processor.
const PATIENCE_AT_START: Duration = Duration::from_secs(180);
/// How long it may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);
/// The system calls in which a server waits for clients: poll, select, accept, epoll_wait, pselect6, ppoll, epoll_pwait and
/// accept4 (`arch/x86/entry/syscalls/syscall_64.tbl`).
const WAITING: [&str; 8] = ["7", "23", "43", "232", "270", "271", "281", "288"];
/// Where logs and settings of servers are.
const FOLDER: &str = "/tmp";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// A port of 127.0.0.1.
    Port(u16),
    /// A socket in the file system.
    Socket(PathBuf),
}

impl At {
    /// A port that nobody uses.
    pub fn free_port() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback")?;
        Ok(Self::Port(listener.local_addr()?.port()))
    }

    /// A socket of this name.
    pub fn socket(name: &str) -> Self {
        Self::Socket(Path::new(FOLDER).join(format!("{name}.sock")))
    }

    /// The port of one that has a port.
    pub fn port(&self) -> Result<u16> {
        match self {
            Self::Port(port) => Ok(*port),
            Self::Socket(path) => anyhow::bail!("{} has no port", path.display()),
        }
    }

    fn is_listening(&self) -> Result<bool> {
        match self {
            Self::Port(port) => Ok(["/proc/net/tcp", "/proc/net/tcp6"]
                .iter()
                .filter_map(|list| fs::read_to_string(list).ok())
                .any(|text| listens(&text, *port))),
            Self::Socket(path) => {
                let text = fs::read_to_string("/proc/net/unix").context("no /proc/net/unix")?;
                let path = path.to_string_lossy();
                // The flag 0x10000 says that it listens.
                Ok(text.lines().any(|line| {
                    line.ends_with(&*path) && line.split_whitespace().nth(3) == Some("00010000")
                }))
            }
        }
    }
}

/// Whether a list of the kernel's TCP sockets has one that listens on the port.
fn listens(text: &str, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        // Number, local address, remote address, state; 0A is LISTEN.
        words.nth(1).is_some_and(|local| local.ends_with(&wanted)) && words.nth(1) == Some("0A")
    })
}

/// Whether the file `syscall` of a process (`Documentation/filesystems/proc.rst`) says that its first thread waits for
/// clients.
fn waits(text: &str) -> bool {
    text.split_whitespace().next().is_some_and(|call| WAITING.contains(&call))
}

/// A server, which runs or can be started again as it was. Dropping it kills it.
pub struct Server {
    name: String,
    argv: Vec<String>,
    at: At,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// nbdkit with these arguments: filters, a plugin and its parameters. With the filter `log`, what it sees is in the
    /// file of [`Server::seen`].
    pub fn nbdkit(name: &str, at: At, args: &[&str]) -> Result<Self> {
        let seen = [
            format!("logfile={}", seen_file(name).display()),
            // One that is started again goes on with it.
            "logappend=true".to_owned(),
        ];
        let args: Vec<&str> =
            [&["--filter=log"], args, &seen.each_ref().map(String::as_str)].concat();
        Self::nbdkit_unseen(name, at, &args)
    }

    /// The same without a log of what it sees, which costs time.
    pub fn nbdkit_unseen(name: &str, at: At, args: &[&str]) -> Result<Self> {
        let mut argv = vec!["nbdkit".to_owned(), "--foreground".to_owned()];
        match &at {
            At::Port(port) => {
                argv.extend(["--ipaddr=127.0.0.1".to_owned(), format!("--port={port}")]);
            }
            At::Socket(path) => argv.push(format!("--unix={}", path.display())),
        }
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        Self::start(name, argv, at)
    }

    /// qemu-nbd for a file, with this name of the export, for up to eight clients at a time.
    pub fn qemu_nbd(name: &str, at: At, export: &str, file: &Path) -> Result<Self> {
        let mut argv: Vec<String> =
            ["qemu-nbd", "--persistent", "--shared=8", "--format=raw", "--discard=unmap"]
                .map(str::to_owned)
                .to_vec();
        match &at {
            At::Port(port) => {
                argv.extend(["--bind=127.0.0.1".to_owned(), format!("--port={port}")]);
            }
            At::Socket(path) => argv.push(format!("--socket={}", path.display())),
        }
        argv.push(format!("--export-name={export}"));
        argv.push(file.display().to_string());
        Self::start(name, argv, at)
    }

    /// nbd-server for a file, with this name of the export. It serves one client, and then ends.
    pub fn nbd_server(name: &str, at: At, export: &str, file: &Path) -> Result<Self> {
        let place = match &at {
            At::Port(port) => format!("listenaddr = 127.0.0.1\nport = {port}\n"),
            At::Socket(path) => format!("unixsock = {}\n", path.display()),
        };
        let settings = Path::new(FOLDER).join(format!("{name}.conf"));
        let text = format!(
            "[generic]\n{place}allowlist = true\n[{export}]\nexportname = {}\nflush = true\nfua = true\n\
             trim = true\n",
            file.display()
        );
        fs::write(&settings, text)?;
        let argv = ["nbd-server", "-d", "-C"].map(str::to_owned).to_vec();
        let argv = [argv, vec![settings.display().to_string()]].concat();
        Self::start(name, argv, at)
    }

    fn start(name: &str, argv: Vec<String>, at: At) -> Result<Self> {
        let log = Path::new(FOLDER).join(format!("{name}.log"));
        let mut server = Self { name: name.to_owned(), argv, at, log, child: None };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it again as it was, and returns once it serves.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        if let At::Socket(path) = &self.at {
            // One that was killed has left it.
            let _ = fs::remove_file(path);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let (program, args) = self.argv.split_first().context("no program")?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let calls = format!("/proc/{}/syscall", child.id());
        self.child = Some(child);
        let at = self.at.clone();
        wait::until(&format!("{} serves", self.name), PATIENCE_AT_START, || {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            ensure!(ended.is_none(), "{} ended ({ended:?}): {}", self.argv.join(" "), self.said());
            Ok(at.is_listening()? && waits(&fs::read_to_string(&calls)?))
        })
    }

    /// The same with other arguments: what begins as `from` becomes `to`.
    pub fn start_again_with(&mut self, from: &str, to: &str) -> Result<()> {
        let place = self.argv.iter().position(|arg| arg.starts_with(from));
        let place = place.with_context(|| format!("{:?} has no {from}", self.argv))?;
        to.clone_into(&mut self.argv[place]);
        self.start_again()
    }

    /// Where it listens.
    pub fn at(&self) -> &At {
        &self.at
    }

    /// Ends it from one moment to the next.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait()
    }

    /// Lets it stand still: it keeps its connections, and neither reads nor answers. Returns when each thread of it stands:
    /// on another processor one of them runs on for a moment, and could answer what comes next.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let threads = format!("/proc/{}/task", child.id());
        wait::until(&format!("{} stands still", self.name), PATIENCE, || {
            for thread in fs::read_dir(&threads)? {
                // A thread without one has ended meanwhile.
                let stat = fs::read_to_string(thread?.path().join("stat"));
                if stat.is_ok_and(|stat| !is_stopped(&stat)) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Lets it go on.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends it after it was cut off. A connection of that time may be open for it for ever: the client has ended it, and told it
    /// so once, which did not arrive; with nothing of its own on the way the server never hears of it, and waits for it.
    pub fn stop_cut_off(mut self) -> Result<()> {
        self.kill()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let begun = std::time::Instant::now();
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
            } else if begun.elapsed() > PATIENCE {
                anyhow::bail!("{} does not end: {}", self.name, self.said());
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What nbdkit has seen, from its first start on.
    pub fn seen(&self) -> Result<Seen> {
        let path = seen_file(&self.name);
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(Seen::parse(&text))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        kill(Pid::from_raw(child.id().try_into()?), signal)?;
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }
}

/// Whether a thread is stopped, from its `stat` (`proc_pid_stat(5)`): the state stands behind the name, which may have
/// brackets of its own.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // There is nobody to tell; `stop` would have.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What nbdkit's filter `log` has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections that were opened.
    pub connects: u64,
    /// Connections that have ended.
    pub disconnects: u64,
    /// Requests of each kind.
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub trims: u64,
    pub zeroes: u64,
}

impl Seen {
    fn parse(text: &str) -> Self {
        let mut seen = Self::default();
        // `TIME connection=1 Write id=2 offset=...`: the word behind the connection names what happened; the end of a
        // request stands as `...Write id=2 return=0`.
        for line in text.lines() {
            let Some((_, rest)) = line.split_once("connection=") else { continue };
            let counter = match rest.split_whitespace().nth(1) {
                Some("Connect") => &mut seen.connects,
                Some("Disconnect") => &mut seen.disconnects,
                Some("Read") => &mut seen.reads,
                Some("Write") => &mut seen.writes,
                Some("Flush") => &mut seen.flushes,
                Some("Trim") => &mut seen.trims,
                Some("Zero") => &mut seen.zeroes,
                _ => continue,
            };
            *counter += 1;
        }
        seen
    }
}

fn seen_file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.seen"))
}

/// A sparse file of so many MiB for a server.
pub fn file(name: &str, mib: u64) -> Result<PathBuf> {
    let path = Path::new(FOLDER).join(name);
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    file.set_len(mib << 20).with_context(|| format!("no room for {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_stopped_when_the_state_behind_its_name_says_so() {
        assert!(is_stopped("71 (nbdkit) T 1 71 71 0 -1"));
        assert!(is_stopped("71 (a) S (b) T 1 71 71 0 -1"));
        assert!(!is_stopped("71 (T) S 1 71 71 0 -1"));
        assert!(!is_stopped("71 (nbdkit) R 1 71 71 0 -1"));
        assert!(!is_stopped(""));
    }

    #[test]
    fn a_listening_port_is_told_from_one_with_connections_only() {
        let text =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:2A39 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20 1\n   \
             1: 0100007F:2A40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 21 1\n";
        assert!(listens(text, 0x2a39));
        assert!(!listens(text, 0x2a40));
        assert!(!listens(text, 0x9999));
    }

    #[test]
    fn a_server_that_listens_and_computes_does_not_wait_for_clients_yet() {
        assert!(waits("270 0x5 0x7ffd 0x0 0x0 0x0 0x7ffd 0x7ffd8 0x7f32\n"), "in pselect6");
        assert!(!waits("running\n"), "it computes");
        assert!(!waits("-1 0x7ffd8 0x7f32\n"), "it was interrupted");
        assert!(!waits("27 0x5\n") && !waits(""), "in another call");
    }

    #[test]
    fn what_nbdkit_has_seen_is_counted_once_for_each_request() {
        let text = "\
2026-11-21 10:00:00.1 Ready thread_model=3
2026-11-21 10:00:00.2 connection=1 Preconnect
2026-11-21 10:00:00.2 connection=1 Connect export=\"\" tls=0 size=0x100000
2026-11-21 10:00:00.3 connection=1 Write id=1 offset=0x0 count=0x1000 fua=0 ...
2026-11-21 10:00:00.3 connection=1 ...Write id=1 return=0
2026-11-21 10:00:00.4 connection=1 Flush id=2 ...
2026-11-21 10:00:00.4 connection=1 ...Flush id=2 return=0
2026-11-21 10:00:00.5 connection=1 Disconnect transactions=2
";
        let seen = Seen::parse(text);
        let wanted = Seen { connects: 1, disconnects: 1, writes: 1, flushes: 1, ..Seen::default() };
        assert_eq!(seen, wanted);
    }
}
