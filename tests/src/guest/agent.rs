// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The agent: obeys the host's requests on a virtio port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};

use super::init;
use crate::link::{self, Action, Event, Reply, Request};

/// Where the kernel lists the virtio ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// How often a line without a host is looked at. The port has no other way to wait for one.
const NO_HOST: Duration = Duration::from_millis(50);

/// How long output is still collected after a program ended whose children keep its output open.
const AFTERMATH: Duration = Duration::from_secs(2);

/// The host's end, shared by all that speak to it.
#[derive(Clone)]
struct Host(Arc<Mutex<File>>);

impl Host {
    /// Sends one message as a whole. There is nobody to tell about a failure.
    fn say(&self, id: Option<u64>, event: Event) {
        let Ok(line) = link::encode(&Reply { id, event }) else {
            return;
        };
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(&line);
    }
}

/// Obeys the host for ever.
pub fn run() -> Result<Infallible> {
    let path = find_port()?;
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let host = Host(Arc::new(Mutex::new(line.try_clone()?)));
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let hello = Event::Hello { protocol: link::PROTOCOL, release };
    host.say(None, hello.clone());
    let mut lines = BufReader::new(line);
    let mut text = Vec::new();
    loop {
        let count = lines.read_until(b'\n', &mut text).context("cannot read the line")?;
        if count == 0 {
            // The port reads as ended while no host is connected; the next one may come at any time.
            std::thread::sleep(NO_HOST);
            continue;
        }
        if let Some(request) = link::decode::<Request>(&text) {
            obey(&host, request, &hello);
        }
        text.clear();
    }
}

/// Finds the port by its name; the kernel numbers ports in the order in which it meets them.
fn find_port() -> Result<PathBuf> {
    let entries = std::fs::read_dir(PORTS).with_context(|| format!("cannot list {PORTS}"))?;
    for entry in entries.flatten() {
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == link::PORT {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("there is no virtio port {}", link::PORT)
}

fn obey(host: &Host, Request { id, action }: Request, hello: &Event) {
    match action {
        Action::Hello {} => host.say(Some(id), hello.clone()),
        Action::Exec { argv, env } => {
            let host = host.clone();
            std::thread::spawn(move || {
                let event = match exec(&host, id, &argv, &env) {
                    Ok(code) => Event::Exit(code),
                    Err(error) => Event::Error(format!("{error:#}")),
                };
                host.say(Some(id), event);
            });
        }
        Action::Put { path, mode, base64 } => {
            let event = match put(Path::new(&path), mode, &base64) {
                Ok(()) => Event::Exit(0),
                Err(error) => Event::Error(format!("{error:#}")),
            };
            host.say(Some(id), event);
        }
        Action::Poweroff {} => init::power_off(),
    }
}

fn exec(host: &Host, id: u64, argv: &[String], env: &BTreeMap<String, String>) -> Result<i32> {
    let (program, args) = argv.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(args)
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (done, ended) = channel();
    let mut streams = 0;
    if let Some(stdout) = child.stdout.take() {
        streams += 1;
        forward(host.clone(), id, stdout, Event::Stdout, done.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        streams += 1;
        forward(host.clone(), id, stderr, Event::Stderr, done);
    }
    let status = child.wait().context("cannot wait for the program")?;
    let deadline = Instant::now() + AFTERMATH;
    for _ in 0..streams {
        let left = deadline.saturating_duration_since(Instant::now());
        if ended.recv_timeout(left).is_err() {
            break;
        }
    }
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1))
}

fn forward(
    host: Host,
    id: u64,
    stream: impl Read + Send + 'static,
    event: fn(String) -> Event,
    done: Sender<()>,
) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            host.say(Some(id), event(String::from_utf8_lossy(&line).into_owned()));
            line.clear();
        }
        // The receiver may have stopped waiting.
        let _ = done.send(());
    });
}

fn put(path: &Path, mode: u32, base64: &str) -> Result<()> {
    let bytes = BASE64_STANDARD.decode(base64).context("the content is not base64")?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
