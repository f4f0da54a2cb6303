// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What must hold after the upgrade of a cell.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atomctl::report::AttemptState;

use super::axes::{Cell, Way};
use super::rules;
use super::stage::Stage;
use super::tool::{self, Ended};
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

/// The old or the new payload serves, as the report says. Where the tool was killed or says that I/O is held, it serves after
/// `atomctl recover`. Returns whether the payload that was to serve is dead.
pub fn serves(stage: &Stage, cell: &Cell, ended: &Ended) -> Result<bool> {
    let (from, to) = Stage::versions(cell.direction);
    let said = ended.outcome();
    ensure!(said.is_some() || ended.code.is_none(), "it ended without a report: {ended:?}");
    if said.is_none() || said == Some("held") {
        recover(stage)?;
    } else {
        // A task that hung may still be on its way out.
        wait::until("a payload serves", PATIENCE, || stage.serves())?;
    }
    ensure!(stage.serves()?, "no payload serves: {:?}", ended.document);
    let live = stage.site.live()?;
    match said {
        Some("committed" | "switched") => {
            ensure!(live == to, "{live} serves, and the report says {:?}", ended.document);
        }
        Some("aborted" | "refused" | "rolled-back") => {
            ensure!(live == from, "{live} serves, and the report says {:?}", ended.document);
        }
        _ => ensure!(live == from || live == to, "{live:?} serves"),
    }
    if cell.fault.kind == "none" {
        ensure!(said == Some("committed"), "nothing was wrong: {:?}", ended.document);
        let warnings = ended.document["warnings"].as_array().map_or(0, Vec::len);
        ensure!(warnings == 0, "nothing was wrong: {:?}", ended.document);
    }
    if rules::ends_the_boot(cell) {
        return stage.is_dead(to);
    }
    wait::until("nobody hangs in a payload", PATIENCE, || {
        Ok(!stage.is_dead(from)? && !stage.is_dead(to)?)
    })?;
    Ok(false)
}

/// Somebody looks after what a dead tool has left.
fn recover(stage: &Stage) -> Result<()> {
    let mut last = None;
    wait::until("atomctl recover", PATIENCE, || {
        let ended = tool::run(&[stage.folder], &["recover"])?;
        let done = ended.code == Some(0);
        last = Some(ended);
        Ok(done)
    })
    .with_context(|| format!("{last:?}"))
}

/// The journal, which was empty before the cell, has the upgrade and tells what has happened.
pub fn journal(stage: &Stage, ended: &Ended, from: &str, to: &str) -> Result<()> {
    let journal = tool::history()?;
    ensure!(journal.damaged == 0, "{} lines are damaged", journal.damaged);
    let live = stage.site.live()?;
    let is_upgrade = |kind: &atomctl::journal::Kind| {
        serde_json::to_value(kind).is_ok_and(|word| word == "upgrade")
    };
    let mut fresh = journal.attempts.iter().filter(|one| is_upgrade(&one.kind));
    let Some(first) = fresh.next() else {
        ensure!(ended.code.is_none(), "the upgrade is not in the journal");
        ensure!(live == from, "{live} serves, and nothing was attempted");
        return Ok(());
    };
    let is_over = matches!(first.state, AttemptState::Ended | AttemptState::Settled);
    ensure!(is_over && first.from == from && first.to == to, "{first:?}");
    let outcome = first.outcome.as_deref().unwrap_or_default();
    let wanted = match outcome {
        "committed" | "switched" | "finished" => to,
        // A later recovery says what became of it.
        "held" => &live,
        _ => from,
    };
    ensure!(live == wanted, "{live} serves: {:?}", journal.attempts);
    if let Some(said) = ended.outcome() {
        ensure!(outcome == said, "the tool said {said}: {first:?}");
    }
    Ok(())
}

/// The upgrade once more, without a fault.
pub fn retry(stage: &Stage, cell: &Cell, to: &str) -> Result<()> {
    let has_dead = rules::ends_the_boot(cell);
    if !has_dead {
        stage.tidy()?;
    }
    let file = stage.file(to);
    let mut args = vec!["upgrade", "--deadline", "10s"];
    // A dead payload cannot be removed.
    if cell.way == Way::Cold && !has_dead {
        args.push("--cold");
    }
    if rules::may_leave_requests(cell) {
        args.extend(["--at-deadline", "reissue"]);
    }
    args.push(&file);
    let ended = tool::run(&[stage.folder], &args)?;
    // It is not committed as long as the module of a dead one is there.
    let done = if has_dead { &["committed", "switched"][..] } else { &["committed"] };
    ensure!(ended.outcome().is_some_and(|outcome| done.contains(&outcome)), "{ended:?}");
    ensure!(stage.site.live()? == to && stage.serves()?, "{} serves", stage.site.live()?);
    Ok(())
}
