// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A fleet of three nodes with sshd, driven by Ansible from the host, with verified load on each of them all the while.
//!
//! One boot of the machines serves all steps; only the one that dies is booted again.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use atom_tests::guest::node::PACKAGES;
use atom_tests::kernel_log;
use atom_tests::load::node::Seen;
use serde_json::{Map, Value};

use super::Verdict;
use crate::fleet::ansible::{Ansible, Output, Run};
use crate::fleet::report::Report;
use crate::fleet::wishes::Wishes;
use crate::node::{Ground, Node, NodeConfig, HERE};
use crate::sysroot::Sysroot;
use crate::{kbuild, modules, package, places, programs};

/// The test's name, and what holds.
pub const NAME: &str = "a_fleet_is_upgraded_stopped_gone_on_with_and_taken_back";
/// The same as a sentence.
pub const WHAT: &str = "Three nodes are driven by Ansible under verified load: a canary fails and nobody else is touched, one \
                        node dies in its turn, one cannot be reached, a second run completes, and all go back.";

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";
/// One that fails in *adopt*: what it claimed goes back, and the old payload serves.
const BAD: &str = "9.0.0-adopt";

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Long enough that the node which dies is met in its soak.
const SOAK: &str = "8s";

/// How long what happens on a node may take, on a busy host.
const LIMIT: Duration = Duration::from_secs(240);
/// How long small things may take.
const SHORT: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(200);

/// Where a node's load has what it did, and what makes it stop.
const SEEN: &str = "/run/atom-load.json";
const STOP: &str = "/run/atom-load.stop";

/// The node that Ansible's role makes of a machine, from packages, with `--slow`. It takes an emulated node minutes, so the
/// others are made by a script meanwhile.
const BY_ROLE: usize = 2;

/// Makes a node of a machine from files.
const PREPARE: &str = "
    modules=/usr/lib/modules/$(uname -r)/extra/atom
    mkdir -p $modules
    cp $PACKAGES/*.ko $modules/
    install -m 755 $PACKAGES/atomctl /usr/bin/
    depmod -a
    modprobe atom
    atomctl load $modules/$FIRST
";

/// Makes two volumes and a file system on one of them, and loads both.
const BEGIN_LOAD: &str = "
    atomctl volume create raw --kind ram --size 32M
    atomctl volume create files --kind ram --size 48M
    mkfs.ext4 -q /dev/atom1
    mkdir -p /srv/files
    mount /dev/atom1 /srv/files
    rm -f $SEEN $STOP
    systemd-run --quiet --unit atom-load --property StandardOutput=file:$SEEN \\
        $HERE/atom-guest load /dev/atom0 /srv/files $STOP
";

/// Boots the fleet, drives it, and judges.
pub fn run(sysroot: &Sysroot, slow: bool) -> Verdict {
    let started = Instant::now();
    let mut facts = Map::new();
    let mut steps = Vec::new();
    let result = drive(sysroot, slow, &mut facts, &mut steps);
    let why = result.err().map(|error| {
        steps.push(format!("{error:#}"));
        steps.join("\n")
    });
    Verdict {
        name: NAME.to_owned(),
        passed: why.is_none(),
        seconds: started.elapsed().as_secs_f64(),
        why,
        facts,
    }
}

/// A node that boots beside others.
struct Starting {
    node: Receiver<Result<Node>>,
    end: Sender<()>,
}

impl Starting {
    /// Begins to boot. A machine ends with the thread that has started it, so the thread stays until it may end.
    fn begin(ground: &Arc<Ground>, name: &str) -> Self {
        let (give, node) = channel();
        let (end, ended) = channel::<()>();
        let config = NodeConfig::named(&format!("fleet_{name}"));
        let ground = Arc::clone(ground);
        std::thread::spawn(move || {
            // Whoever has asked may be gone; then the node goes too.
            if give.send(Node::boot(&ground, &config)).is_ok() {
                let _ = ended.recv();
            }
        });
        Self { node, end }
    }
}

/// The nodes, and how Ansible is run over them.
struct Fleet<'a> {
    ground: Arc<Ground>,
    ansible: Ansible,
    /// None for one that is dead.
    nodes: [Option<Node>; 3],
    /// The threads that have started them end with these.
    _starters: Vec<Sender<()>>,
    folder: PathBuf,
    facts: &'a mut Map<String, Value>,
    steps: &'a mut Vec<String>,
    began: Instant,
}

fn drive(
    sysroot: &Sysroot,
    slow: bool,
    facts: &mut Map<String, Value>,
    steps: &mut Vec<String>,
) -> Result<()> {
    let mut fleet = Fleet::boot(sysroot, facts, steps)?;
    match slow {
        true => fleet.prepare_one_by_the_role()?,
        false => fleet.prepare(&[0, 1, 2])?,
    }
    fleet.all_live()?;
    fleet.canary_fails()?;
    fleet.one_dies_and_one_is_unreachable()?;
    fleet.second_run_completes()?;
    if slow {
        fleet.verbs_reach_a_node_by_ssh(sysroot)?;
    }
    fleet.all_go_back()?;
    fleet.end()
}

impl<'a> Fleet<'a> {
    fn boot(
        sysroot: &Sysroot,
        facts: &'a mut Map<String, Value>,
        steps: &'a mut Vec<String>,
    ) -> Result<Self> {
        let began = Instant::now();
        let folder = places::target().join("fleet/scenario");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(folder.join("files"))?;
        write_files(sysroot, &folder.join("files"))?;
        package::make(
            sysroot,
            &package::Request {
                format: package::Format::Deb,
                payloads: [OLD, NEW, BAD].map(str::to_owned).to_vec(),
                out: folder.join("packages"),
                signing: None,
                release: "1".to_owned(),
            },
        )?;
        let ground = Arc::new(Ground::prepare(sysroot, Some(&folder.join("files")))?);
        let starting = NODES.map(|name| Starting::begin(&ground, name));
        let (mut nodes, mut starters) = ([None, None, None], Vec::new());
        for (node, starting) in nodes.iter_mut().zip(starting) {
            *node = Some(starting.node.recv().context("booting a node panicked")??);
            starters.push(starting.end);
        }
        let ansible = Ansible::Sysroot(Box::new(sysroot.clone()));
        let mut fleet =
            Self { ground, ansible, nodes, _starters: starters, folder, facts, steps, began };
        fleet.write_inventory()?;
        for index in 0..NODES.len() {
            fleet.await_ssh(index)?;
        }
        fleet.step("three nodes are up");
        Ok(fleet)
    }

    fn step(&mut self, text: &str) {
        let line = format!("step: {text} ({:.0} s)", self.began.elapsed().as_secs_f64());
        eprintln!("  {line}");
        self.steps.push(line);
    }

    /// The node of a name's index, which lives.
    fn node(&self, index: usize) -> Result<&Node> {
        self.nodes[index].as_ref().with_context(|| format!("{} is dead", NODES[index]))
    }

    /// Runs a line of shell on a node.
    fn shell(&self, index: usize, line: &str) -> Result<String> {
        self.node(index)?.vm().read(&["sh", "-e", "-c", line], LIMIT)
    }

    /// What Atom says of itself on a node.
    fn status(&self, index: usize) -> Result<Value> {
        let text = self.shell(index, "atomctl status --json")?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// The inventory, with the ports that the nodes have now, and what ssh needs beside it.
    fn write_inventory(&self) -> Result<()> {
        let key = self.folder.join("key");
        let client = self.ground.keys().client();
        std::fs::copy(&client, &key).with_context(|| format!("no {}", client.display()))?;
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600))?;
        let host_line = self.ground.keys().host_line()?;
        let (mut hosts, mut known) = (String::new(), String::new());
        for (name, node) in NODES.iter().zip(&self.nodes) {
            // Nothing listens on the port of one that is dead.
            let port = node.as_ref().map_or(1, Node::ssh_port);
            hosts.push_str(&format!("{name} ansible_port={port}\n"));
            known.push_str(&format!("[127.0.0.1]:{port} {host_line}\n"));
        }
        hosts.push_str(
            "\n[all:vars]\nansible_host=127.0.0.1\nansible_user=root\n\
             ansible_python_interpreter=/usr/bin/python3\n\
             ansible_ssh_private_key_file={{ inventory_dir }}/key\n\
             ansible_ssh_common_args=-o UserKnownHostsFile={{ inventory_dir }}/known_hosts\n",
        );
        std::fs::write(self.folder.join("known_hosts"), known)?;
        std::fs::write(self.folder.join("inventory"), hosts)?;
        Ok(())
    }

    /// Waits until a node's sshd answers.
    fn await_ssh(&self, index: usize) -> Result<()> {
        let port = self.node(index)?.ssh_port();
        until(&format!("{} answers on its port of ssh", NODES[index]), || {
            // QEMU accepts whatever the guest does, so only what is said counts.
            let mut banner = [0; 4];
            let Ok(mut line) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                return Ok(false);
            };
            line.set_read_timeout(Some(SHORT))?;
            Ok(line.read_exact(&mut banner).is_ok() && &banner == b"SSH-")
        })
    }

    /// The run that a verb and wishes make.
    fn wanted(&self, verb: &'static str, wishes: Wishes) -> Run {
        let output = Output::File(self.folder.join("ansible.log"));
        Run {
            verb,
            inventory: self.folder.join("inventory"),
            limit: None,
            forks: 3,
            verbose: false,
            output,
            wishes,
            packages: None,
            files: None,
            rollout: None,
        }
    }

    /// An upgrade with one canary, and all others after it.
    fn upgrade(&self, version: &str, max_failures: &str) -> Run {
        let wishes = Wishes {
            version: Some(version.to_owned()),
            canary: Some(1),
            batches: vec!["100%".to_owned()],
            max_failures: Some(max_failures.to_owned()),
            soak: Some(SOAK.to_owned()),
            retries: Some(0),
            ..Wishes::default()
        };
        self.wanted("upgrade", wishes)
    }

    /// Runs a playbook, and checks the state of each node in what it reports.
    fn run(&self, run: &Run, code: u8, states: [&str; 3]) -> Result<Report> {
        self.judged(run, run.run(&self.ansible), code, states)
    }

    fn judged(
        &self,
        run: &Run,
        report: Result<Report>,
        code: u8,
        states: [&str; 3],
    ) -> Result<Report> {
        let report = report.with_context(|| self.said())?;
        let found = NODES.map(|name| report.state(name));
        ensure!(
            found == states && report.exit_code() == code,
            "{} ended with {} and {found:?} instead of {code} and {states:?}{}",
            run.verb,
            report.exit_code(),
            self.said()
        );
        Ok(report)
    }

    /// The end of what Ansible has said.
    fn said(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("ansible.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(40);
        format!("\nAnsible said:\n{}", lines[last..].join("\n"))
    }

    /// Makes these nodes from files, and loads them.
    fn prepare(&self, nodes: &[usize]) -> Result<()> {
        nodes.iter().try_for_each(|index| {
            self.install(*index)?;
            self.begin_load(*index)
        })
    }

    fn prepare_one_by_the_role(&self) -> Result<()> {
        let wishes = Wishes { first: Some(OLD.to_owned()), ..Wishes::default() };
        let role = Run {
            limit: Some(NODES[BY_ROLE].to_owned()),
            packages: Some(self.folder.join("packages")),
            ..self.wanted("prepare", wishes)
        };
        let ansible = &self.ansible;
        let report = std::thread::scope(|scope| {
            let running = scope.spawn(|| role.run(ansible));
            let others: Vec<usize> = (0..NODES.len()).filter(|one| *one != BY_ROLE).collect();
            let made = self.prepare(&others);
            match running.join() {
                Ok(report) => made.and(report),
                Err(_) => bail!("what was to run Ansible panicked"),
            }
        });
        self.judged(&role, report, 0, ["unknown", "unknown", "live"])?;
        self.has_packages(BY_ROLE)?;
        self.begin_load(BY_ROLE)
    }

    fn all_live(&mut self) -> Result<()> {
        self.run(&self.wanted("status", Wishes::default()), 0, ["live"; 3])?;
        self.step("each node serves the first payload, and is under load");
        Ok(())
    }

    /// All versions are installed as packages.
    fn has_packages(&self, index: usize) -> Result<()> {
        let packages = self.shell(index, "dpkg-query -W -f '${Package} ${db:Status-Status}\n'")?;
        let wanted = [OLD, NEW, BAD].map(|version| format!("kmod-atom-payload-{version}"));
        for name in ["kmod-atom", "atom-tools"].into_iter().chain(wanted.iter().map(String::as_str))
        {
            let line = format!("{name} installed");
            ensure!(packages.lines().any(|one| one == line), "no {name}: {packages}");
        }
        Ok(())
    }

    /// Makes a node of a machine that has just booted.
    fn install(&self, index: usize) -> Result<()> {
        let script = PREPARE.replace("$PACKAGES", PACKAGES).replace("$FIRST", &module_of(OLD));
        self.shell(index, &script).map(drop)
    }

    /// Loads a node.
    fn begin_load(&self, index: usize) -> Result<()> {
        let script =
            BEGIN_LOAD.replace("$SEEN", SEEN).replace("$STOP", STOP).replace("$HERE", HERE);
        self.shell(index, &script)?;
        until(&format!("the load of {} is under way", NODES[index]), || {
            self.check_load(index)?;
            Ok(self.shell(index, "ls /srv/files")?.lines().count() > 3)
        })?;
        // Ansible has the rest of the node's processor.
        self.shell(index, "systemctl set-property --runtime atom-load.service CPUQuota=20%")?;
        Ok(())
    }

    /// The load goes on. It ends by itself at an error or a wrong byte.
    fn check_load(&self, index: usize) -> Result<()> {
        let script = "systemctl is-active atom-load || journalctl --no-pager -u atom-load";
        let said = self.shell(index, script)?;
        ensure!(said.trim() == "active", "the load of {} has ended: {said}", NODES[index]);
        Ok(())
    }

    /// What serves on the nodes that live.
    fn expect_live(&self, versions: [&str; 3]) -> Result<()> {
        for (index, version) in versions.into_iter().enumerate() {
            let status = self.status(index)?;
            let live = &status["live"]["version"];
            ensure!(live == version, "{} serves {live} instead of {version}", NODES[index]);
            self.check_load(index)?;
        }
        Ok(())
    }

    fn canary_fails(&mut self) -> Result<()> {
        let handoffs =
            |fleet: &Self, index| Ok::<_, anyhow::Error>(fleet.status(index)?["handoffs"].clone());
        let before = [handoffs(self, 1)?, handoffs(self, 2)?];
        let report =
            self.run(&self.upgrade(BAD, "100%"), 1, ["failed", "not-reached", "not-reached"])?;
        let why = report.node(NODES[0])["reason"].as_str().unwrap_or_default();
        // What its *adopt* returns, after which the old payload has the devices again.
        ensure!(
            why.contains("rolled-back") && why.contains("error 5"),
            "the canary failed for another reason: {why}"
        );
        self.expect_live([OLD; 3])?;
        ensure!(
            before == [handoffs(self, 1)?, handoffs(self, 2)?],
            "a node was touched after the canary had failed"
        );
        self.run(
            &self.wanted("rollback", Wishes::default()),
            0,
            ["rolled-back", "untouched", "untouched"],
        )?;
        self.step("the canary failed, and nobody else was touched");
        Ok(())
    }

    fn one_dies_and_one_is_unreachable(&mut self) -> Result<()> {
        self.shell(2, "systemctl stop ssh.service")?;
        let victim = self.nodes[1].take().context("the second node is dead already")?;
        let run = self.upgrade(NEW, "0");
        let report = std::thread::scope(|scope| {
            let killer = scope.spawn(|| kill_in_its_soak(victim));
            let report = self.run(&run, 1, ["upgraded", "lost", "unreachable"]);
            match killer.join() {
                Ok(killed) => report.and_then(|report| killed.map(|()| report)),
                Err(_) => bail!("what was to kill a node panicked"),
            }
        })?;
        ensure!(
            report.node(NODES[1])["version"].is_null(),
            "it is claimed to be known what a dead node serves"
        );
        let pause = report.node(NODES[0])["pause_us"].clone();
        self.facts.insert("pause_us".to_owned(), pause);
        for (index, version) in [(0, NEW), (2, OLD)] {
            let live = self.status(index)?["live"]["version"].clone();
            ensure!(live == version, "{} serves {live}", NODES[index]);
            self.check_load(index)?;
        }
        self.step("one node died in its soak and one could not be reached; the canary is upgraded");
        Ok(())
    }

    fn second_run_completes(&mut self) -> Result<()> {
        self.shell(2, "systemctl start ssh.service")?;
        let config = NodeConfig { keep_disks: true, ..NodeConfig::named("fleet_node2") };
        self.nodes[1] = Some(Node::boot(&self.ground, &config)?);
        self.write_inventory()?;
        self.await_ssh(1)?;
        self.await_ssh(2)?;
        self.install(1)?;
        self.begin_load(1)?;
        let done = self.status(0)?["handoffs"].clone();
        self.run(&self.upgrade(NEW, "0"), 0, ["upgraded"; 3])?;
        self.expect_live([NEW; 3])?;
        ensure!(self.status(0)?["handoffs"] == done, "the canary was upgraded twice");
        let wishes = Wishes { version: Some(NEW.to_owned()), ..Wishes::default() };
        self.run(&self.wanted("verify", wishes), 0, ["verified"; 3])?;
        self.step("a second run has completed the rollout, and every node was verified");
        Ok(())
    }

    /// `cargo xtask VERB --target HOST`, with the sysroot's ssh: its document comes here, and it exits as `atomctl` does there.
    fn verbs_reach_a_node_by_ssh(&mut self, sysroot: &Sysroot) -> Result<()> {
        let bin = self.folder.join("bin");
        std::fs::create_dir_all(&bin)?;
        let ssh = sysroot.chroot().bind(&self.folder, "fleet").command("ssh");
        let options = "-o BatchMode=yes -o IdentityFile=/mnt/fleet/key -o UserKnownHostsFile=/mnt/fleet/known_hosts";
        let program = bin.join("ssh");
        std::fs::write(&program, format!("#!/bin/sh\n{ssh} {options} \"$@\"\n"))?;
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let host = format!("ssh://root@127.0.0.1:{}", self.node(0)?.ssh_port());
        let xtask = |verb: &str, more: &[&str]| {
            std::process::Command::new(std::env::current_exe()?)
                .args([verb, "--target", &host, "--json"])
                .args(more)
                .env("PATH", format!("{}:{path}", bin.display()))
                .output()
                .context("cannot start cargo xtask")
        };
        let said = xtask("status", &[])?;
        let text = String::from_utf8_lossy(&said.stdout);
        let status: Value = serde_json::from_str(&text).with_context(|| format!("{said:?}"))?;
        ensure!(said.status.success() && status["live"]["version"] == NEW, "{said:?}");
        // Refused there, so refused here.
        let said = xtask("plan", &["0.0.1"])?;
        ensure!(said.status.code() == Some(3), "{said:?}");
        self.step("verbs of cargo xtask have reached a node by ssh");
        Ok(())
    }

    fn all_go_back(&mut self) -> Result<()> {
        self.run(&self.wanted("rollback", Wishes::default()), 0, ["rolled-back"; 3])?;
        self.expect_live([OLD; 3])?;
        self.step("all nodes went back");
        Ok(())
    }

    /// Stops the load, and judges what it and the kernels have seen.
    fn end(&mut self) -> Result<()> {
        for (index, name) in NODES.iter().enumerate() {
            self.shell(index, &format!("touch {STOP}"))?;
            until(&format!("the load of {name} ends"), || {
                Ok(self.shell(index, "systemctl is-active atom-load || true")?.trim() != "active")
            })?;
            let text =
                self.shell(index, &format!("cat {SEEN}; journalctl --no-pager -q -u atom-load"))?;
            let seen: Seen = serde_json::from_str(text.lines().next().unwrap_or_default())
                .with_context(|| format!("the load of {name} saw something wrong: {text}"))?;
            self.facts.insert(name.to_string(), serde_json::to_value(seen)?);
        }
        for (index, name) in NODES.iter().enumerate() {
            let vm = self.node(index)?.vm();
            let log = vm.kernel_log()?;
            std::fs::write(vm.dir().join("kernel.log"), &log)?;
            let findings = kernel_log::scan(&log, &[] as &[&str]);
            ensure!(findings.is_empty(), "the kernel of {name} complains: {:?}", findings[0].text);
        }
        self.step("no load saw an error or a wrong byte");
        let nodes = std::mem::take(&mut self.nodes);
        std::thread::scope(|scope| {
            let ends: Vec<_> =
                nodes.into_iter().flatten().map(|node| scope.spawn(|| node.poweroff())).collect();
            ends.into_iter().try_for_each(|end| match end.join() {
                Ok(end) => end,
                Err(_) => bail!("turning a node off panicked"),
            })
        })
    }
}

/// What the nodes are made from, in the folder that they find as [`PACKAGES`].
fn write_files(sysroot: &Sysroot, folder: &Path) -> Result<()> {
    let versions = modules::payload_versions()?;
    let mut copies = vec![
        (kbuild::loadable(sysroot, modules::ATOM), "atom.ko".to_owned()),
        (programs::path("atomctl"), "atomctl".to_owned()),
    ];
    for name in [OLD, NEW, BAD] {
        let version = versions.iter().find(|known| known.name == name);
        let version = version.with_context(|| format!("there is no payload {name}"))?;
        copies.push((kbuild::loadable(sysroot, &version.object), module_of(name)));
    }
    for (from, to) in copies {
        std::fs::copy(&from, folder.join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// The name that the file of a payload has in the folder for nodes.
fn module_of(version: &str) -> String {
    format!("payload_{}.ko", version.replace('.', "_"))
}

/// Waits for the new payload to serve on a node, and then cuts the node off, while the payload is still watched.
fn kill_in_its_soak(node: Node) -> Result<()> {
    until("the second node is in its soak", || {
        let text = node.vm().read(&["atomctl", "status", "--json"], SHORT)?;
        let status: Value = serde_json::from_str(&text)?;
        Ok(status["live"]["version"] == NEW && status["soak"].is_object())
    })?;
    node.vm().cutter()?.cut();
    Ok(())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds()? {
        ensure!(Instant::now() < deadline, "after {} s it did not hold: {what}", LIMIT.as_secs());
        std::thread::sleep(GLANCE);
    }
    Ok(())
}
