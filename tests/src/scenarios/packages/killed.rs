// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! An `atomctl` that is killed in the last script of a transaction: before the switch, within it, and in the soak. The
//! transaction succeeds all the same; `atomctl recover` or the next transaction brings the node to rest.

use std::fs;
use std::thread::JoinHandle;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::control::Status;
use atom_abi::lifecycle::Place;
use atom_abi::request::op;
use atomctl::control::Control;
use atomctl::volume;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::{LONG_SOAK, PATIENCE, SHORT_SOAK};
use crate::kept;
use crate::packaged::{configure, live, rpms_are_whole, run, run_saying, serves, Load, Said};
use crate::ptraced;
use crate::scenarios::Context;
use crate::wait;

/// What the last script of a transaction calls, as `/proc/PID/cmdline` has it.
const CALLED: &[u8] = b"atomctl\0package\0installed\0";
/// What keeps requests when it is told to.
const STUCK: &str = "9.0.0-stuck";
/// Its module while it is loaded.
const STUCK_LOADED: &str = "/sys/module/payload_test_stuck";

/// Two packages and what serves between the transactions.
struct Node<'a> {
    context: &'a Context,
    old: &'a str,
    stuck: &'a str,
    load: &'a mut Load,
    /// The last attempt in the journal that was looked at.
    known: u64,
}

/// Kills it at each phase, on a node where `1.1.0` serves, from the package `old`. It serves in the end as well.
pub(super) fn in_each_phase(
    context: &Context,
    old: &str,
    stuck: &str,
    load: &mut Load,
) -> Result<()> {
    let known = last_number(&history(context)?);
    let mut node = Node { context, old, stuck, load, known };
    node.before_the_switch()?;
    node.within_the_switch()?;
    node.in_the_soak()?;
    node.in_the_soak_and_another_transaction_comes()
}

impl Node<'_> {
    fn before_the_switch(&mut self) -> Result<()> {
        self.context.step("killed when the new module is loaded, and before it takes over");
        configure(SHORT_SOAK)?;
        let transaction = install(&["-U", self.stuck]);
        let tool = wait_for_tool(&transaction)?;
        let tool = ptraced::behind_call(tool, &ptraced::INSERTIONS)?;
        ensure!(fs::exists(STUCK_LOADED)?, "the call inserted something else");
        ensure!(live()? == "1.1.0", "it was stopped too late: {} serves", live()?);
        tool.kill()?;
        passes(transaction)?;
        ensure!(live()? == "1.1.0" && fs::exists(STUCK_LOADED)?, "{} serves", live()?);
        self.is_well()?;
        self.journal_has("interrupted", "")?;

        self.context.step("the next transaction takes up the module that is loaded");
        self.goes_to(STUCK, &["-U", "--replacepkgs", self.stuck])?;
        self.journal_has("ended", "committed")
    }

    fn within_the_switch(&mut self) -> Result<()> {
        self.context.step("killed while the switch waits for requests");
        let control = Control::open()?;
        kept::keep(&control, op::WRITE, 1)?;
        let transaction = install(&["-U", "--oldpackage", self.old]);
        let tool = wait_for_tool(&transaction)?;
        wait::until("the gates are closed", PATIENCE, || {
            ensure!(!transaction.is_finished(), "the transaction has ended");
            Ok(control.status()?.place == Place::Closed.code())
        })?;
        kill(tool, Signal::SIGKILL)?;
        passes(transaction)?;
        let Status { place, held_ns, .. } = control.status()?;
        ensure!(place == Place::Live.code() && held_ns == 0, "{}", Place::name_of(place));
        ensure!(live()? == STUCK, "{} serves", live()?);
        volume::release(&control)?;
        self.is_well()?;
        self.journal_has("interrupted", "")?;

        self.context.step("recover removes what never became live");
        self.recover(STUCK)?;
        self.journal_has("settled", "undone")?;
        // Whoever was killed in a switch has left Atom the terms of its soak, of which recover tells.
        self.context.run(&["atomctl", "policy", "--soak", "0s"])?;
        self.goes_to("1.1.0", &["-U", "--replacepkgs", self.old])?;
        self.journal_has("ended", "committed")
    }

    fn in_the_soak(&mut self) -> Result<()> {
        self.context.step("killed in the soak");
        self.kill_in_the_soak()?;
        self.context.step("recover goes back");
        self.recover("1.1.0")?;
        self.journal_has("settled", "undone")
    }

    fn in_the_soak_and_another_transaction_comes(&mut self) -> Result<()> {
        self.context.step("killed in the soak, and another transaction comes");
        self.kill_in_the_soak()?;
        configure(SHORT_SOAK)?;
        self.goes_to("1.1.0", &["-U", "--oldpackage", self.old])?;
        self.journal_has("ended", "committed")
    }

    fn kill_in_the_soak(&mut self) -> Result<()> {
        configure(LONG_SOAK)?;
        let control = Control::open()?;
        let transaction = install(&["-U", "--replacepkgs", self.stuck]);
        let tool = wait_for_tool(&transaction)?;
        wait::until("the new payload soaks", PATIENCE, || {
            ensure!(!transaction.is_finished(), "the transaction has ended");
            Ok(control.status()?.soak_left_ns != 0)
        })?;
        kill(tool, Signal::SIGKILL)?;
        passes(transaction)?;
        ensure!(live()? == STUCK, "{} serves", live()?);
        self.is_well()?;
        self.journal_has("interrupted", "")
    }

    /// Nothing failed, and packages are as they were packed.
    fn is_well(&mut self) -> Result<()> {
        rpms_are_whole()?;
        self.load.goes_on()
    }

    fn recover(&mut self, version: &str) -> Result<()> {
        self.context.run(&["atomctl", "recover"])?;
        serves(version)?;
        self.is_well()
    }

    fn goes_to(&mut self, version: &str, args: &[&str]) -> Result<()> {
        run_saying("rpm", args, &format!("payload {version} is live"))?;
        serves(version)?;
        self.is_well()
    }

    /// The journal has one more attempt of a package than the last time it was looked at, or the same one, and it says this
    /// of it. An attempt that has not ended has no outcome.
    fn journal_has(&mut self, state: &str, outcome: &str) -> Result<()> {
        let journal = history(self.context)?;
        ensure!(journal["damaged"] == 0, "{journal}");
        let attempts = journal["attempts"].as_array().context("no attempts")?;
        let number = |one: &Value| one["attempt"].as_u64().unwrap_or_default();
        let by_package = |one: &&Value| one["kind"] == "upgrade" && one["origin"] == "package";
        let fresh = attempts.iter().filter(|one| number(one) >= self.known).filter(by_package);
        let last = fresh.max_by_key(|one| number(one)).context("no attempt of a package")?;
        self.known = number(last);
        let text = |field: &str| last[field].as_str().unwrap_or_default().to_owned();
        ensure!(text("state") == state && text("outcome") == outcome, "not {state}: {last}");
        Ok(())
    }
}

/// Starts a transaction.
fn install(args: &[&str]) -> JoinHandle<Result<Said>> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    std::thread::spawn(move || run("rpm", &args.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// A transaction succeeds, whatever became of its `atomctl`.
fn passes(transaction: JoinHandle<Result<Said>>) -> Result<()> {
    let said = transaction.join().map_err(|_| anyhow!("the thread panicked"))??;
    ensure!(said.passed && !said.text.contains("is live,"), "{said:?}");
    Ok(())
}

/// The process that the last script has started.
fn wait_for_tool(transaction: &JoinHandle<Result<Said>>) -> Result<Pid> {
    let mut found = None;
    wait::until("the last script calls atomctl", PATIENCE, || {
        ensure!(!transaction.is_finished(), "the transaction has ended");
        found = fs::read_dir("/proc")?.flatten().find_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let begin = line.iter().position(|byte| *byte == 0)?;
            let name = line[..begin].rsplit(|byte| *byte == b'/').next()?;
            [name, &line[begin..]].concat().starts_with(CALLED).then(|| Pid::from_raw(number))
        });
        Ok(found.is_some())
    })?;
    found.context("no atomctl")
}

fn history(context: &Context) -> Result<Value> {
    Ok(serde_json::from_str(&context.run(&["atomctl", "--json", "history"])?)?)
}

fn last_number(journal: &Value) -> u64 {
    let attempts = journal["attempts"].as_array();
    attempts.into_iter().flatten().filter_map(|one| one["attempt"].as_u64()).max().unwrap_or(0)
}
