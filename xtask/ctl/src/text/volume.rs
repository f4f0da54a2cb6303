// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes, for people.

use std::time::Duration;

use atom_payload::latency::BUCKETS;

use super::{row, table, Paint};
use crate::quantity::{show_bytes, show_micros};
use crate::report::{
    ApplyDocument, ApplyEntry, ApplyOutcome, ApplyResult, LatencyReport, TargetReport, TermsReport,
    VolumeDocument, VolumeEntry, Volumes,
};

/// The volumes.
pub fn volumes(volumes: &Volumes, paint: Paint) -> String {
    if volumes.volumes.is_empty() {
        return "no volumes\n".to_owned();
    }
    let mut rows = vec![row(["name", "device", "size", "layout", "targets", "state"])];
    rows.extend(volumes.volumes.iter().map(|volume| {
        vec![
            volume.name.clone(),
            volume.device.clone(),
            show_bytes(volume.bytes),
            volume.layout.clone(),
            volume.targets.join(" "),
            volume.state.clone(),
        ]
    }));
    let text = table(&rows);
    let mut lines = text.lines();
    let mut painted: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
    painted.extend(
        lines.zip(&volumes.volumes).map(|(line, volume)| stated(line, &volume.state, paint)),
    );
    painted.join("\n") + "\n"
}

/// All that is known of one volume. `now_us` is the time since the machine has started.
pub fn volume(document: &VolumeDocument, now_us: Option<u64>, paint: Paint) -> String {
    let volume = &document.volume;
    let layout = match document.chunk_bytes {
        Some(chunk) => format!("{} by {}", volume.layout, show_bytes(chunk)),
        None => volume.layout.clone(),
    };
    let device = match &volume.link {
        Some(link) => format!("{}, {link}", volume.device),
        None => volume.device.clone(),
    };
    let mut text = table(&[
        row(["volume", &volume.name]),
        row(["device", &device]),
        row([
            "size",
            &format!("{}, blocks of {} bytes", show_bytes(volume.bytes), volume.block_bytes),
        ]),
        row(["layout", &layout]),
        row(["state", &stated(&volume.state, &volume.state, paint)]),
        row(["done", &done(volume)]),
        row(["errors", &volume.errors.to_string()]),
    ]);
    for (index, target) in document.targets.iter().enumerate() {
        text.push_str(&format!("\ntarget {}  {}\n", index.saturating_add(1), target.at));
        text.push_str(&indented(&table(&facts(target, paint))));
        if !target.connections.is_empty() {
            text.push_str(&indented(&connections(target)));
        }
        if !target.latency.is_empty() {
            text.push_str(&indented(&latencies(target)));
        }
        if !target.last_failures.is_empty() {
            text.push_str(&indented(&failures(target, now_us)));
        }
    }
    text
}

/// A plan, before anything of it is done.
pub fn plan(document: &ApplyDocument, paint: Paint) -> String {
    if document.volumes.is_empty() {
        return "nothing is wanted, and there are no volumes\n".to_owned();
    }
    let rows: Vec<Vec<String>> = document
        .volumes
        .iter()
        .map(|entry| {
            let mark = match entry.action.as_str() {
                "create" => "+",
                "grow" => "~",
                "destroy" => "-",
                "refused" => "!",
                _ => " ",
            };
            row([mark, &entry.name, &entry.action, &entry.detail])
        })
        .collect();
    let painted: Vec<String> = table(&rows)
        .lines()
        .zip(&document.volumes)
        .map(|(line, entry)| match entry.action.as_str() {
            "create" | "grow" => paint.good(line),
            "destroy" => paint.notable(line),
            "refused" => paint.bad(line),
            _ => paint.faint(line),
        })
        .collect();
    painted.join("\n") + "\n"
}

/// A step of a plan that has ended.
pub fn step(entry: &ApplyEntry, paint: Paint) -> String {
    let device = entry.device.as_deref().map_or_else(String::new, |device| format!(", {device}"));
    let did = match (entry.result, entry.action.as_str()) {
        (ApplyResult::Done, "create") => paint.good("created"),
        (ApplyResult::Done, "grow") => paint.good("grown"),
        (ApplyResult::Done, _) => paint.good("destroyed"),
        _ => paint.bad(&format!("{} failed", entry.action)),
    };
    format!("{}: {did}{device}\n", entry.name)
}

/// What a plan has come to.
pub fn applied(document: &ApplyDocument, paint: Paint) -> String {
    let count = |result| document.volumes.iter().filter(|entry| entry.result == result).count();
    let names = |result| {
        let named = document.volumes.iter().filter(|entry| entry.result == result);
        named.map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    match document.outcome {
        ApplyOutcome::Planned => String::new(),
        ApplyOutcome::Done if count(ApplyResult::Done) == 0 => "nothing to do\n".to_owned(),
        ApplyOutcome::Done => format!("{} done\n", count(ApplyResult::Done)),
        ApplyOutcome::Refused => paint.bad("nothing was done") + "\n",
        ApplyOutcome::Failed => {
            let or_none = |names: String| if names.is_empty() { "none".to_owned() } else { names };
            table(&[
                row(["done", &or_none(names(ApplyResult::Done))]),
                row(["failed", &paint.bad(&names(ApplyResult::Failed))]),
                row(["not done", &or_none(names(ApplyResult::NotDone))]),
            ])
        }
    }
}

/// Text in the colour of a state.
fn stated(text: &str, state: &str, paint: Paint) -> String {
    match state {
        "failed" => paint.bad(text),
        "retrying" | "connecting" => paint.notable(text),
        _ => text.to_owned(),
    }
}

fn done(volume: &VolumeEntry) -> String {
    let parts: Vec<String> = volume
        .done
        .iter()
        .filter(|(_, work)| work.ios > 0)
        .map(|(operation, work)| format!("{operation} {} ({})", work.ios, show_bytes(work.bytes)))
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

fn facts(target: &TargetReport, paint: Paint) -> Vec<Vec<String>> {
    let state = match &*target.state {
        "ready" => target.state.clone(),
        state => format!("{state} for {}", show_micros(target.since_us)),
    };
    let used = format!("{} of {}", show_bytes(target.bytes), show_bytes(target.capacity_bytes));
    let mut rows =
        vec![row(["state", &stated(&state, &target.state, paint)]), row(["used", &used])];
    if let Some(address) = &target.address {
        rows.push(row(["address", address]));
    }
    if target.resident_bytes > 0 {
        rows.push(row(["memory", &show_bytes(target.resident_bytes)]));
    }
    if let Some(agreed) = &target.terms {
        rows.push(row(["terms", &terms(agreed)]));
        let connected = format!("{} of {}", target.connected, agreed.connections);
        rows.push(row(["connections", &connected]));
        rows.push(row([
            "requests",
            &format!(
                "{} waiting, {} sent again, {} reconnects, {} protocol errors",
                target.waiting, target.resent, target.reconnects, target.protocol_errors
            ),
        ]));
    }
    rows.push(row(["failures", &target.failures.to_string()]));
    if !target.last_error.is_empty() {
        rows.push(row(["last error", &target.last_error]));
    }
    rows
}

fn terms(terms: &TermsReport) -> String {
    let time = |ms: u32| humantime::format_duration(Duration::from_millis(ms.into())).to_string();
    let failed = match (terms.deadline_ms, terms.retries) {
        (0, 0) => "never failed".to_owned(),
        (0, retries) => format!("failed after {retries} attempts"),
        (ms, 0) => format!("failed after {}", time(ms)),
        (ms, retries) => format!("failed after {} or {retries} attempts", time(ms)),
    };
    let answer = match terms.answer_ms {
        0 => "answers at any time".to_owned(),
        ms => format!("answers within {}", time(ms)),
    };
    let keepalive = match terms.keepalive_s {
        0 => "not probed".to_owned(),
        seconds => format!("probed after {seconds}s of silence"),
    };
    let retry = time(terms.retry_ms);
    format!(
        "{failed}, then {}; {answer}, attempts at most {retry} apart, {keepalive}",
        terms.on_failure
    )
}

fn connections(target: &TargetReport) -> String {
    let mut rows = vec![row(["local port", "state", "sent", "answered"])];
    rows.extend(target.connections.iter().map(|one| {
        let port = if one.local_port == 0 { "-".to_owned() } else { one.local_port.to_string() };
        vec![port, one.state.clone(), one.sent.to_string(), one.answered.to_string()]
    }));
    table(&rows)
}

fn latencies(target: &TargetReport) -> String {
    let mut rows = vec![row(["latency", "parts", "mean", "longest", "how many took how long"])];
    rows.extend(target.latency.iter().map(|(operation, latency)| {
        vec![
            operation.clone(),
            latency.count.to_string(),
            show_ns(latency.mean_ns),
            show_ns(latency.longest_ns),
            histogram(latency),
        ]
    }));
    table(&rows)
}

/// One bar for each doubling of the time, between the ends of the first and the last class that has something.
fn histogram(latency: &LatencyReport) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = latency.classes.iter().map(|(_, count)| *count).max().unwrap_or(0);
    // The class without an end is drawn behind the longest one that has an end.
    let place = |end: &Option<u64>| end.map_or(BUCKETS as u32 + 9, u64::trailing_zeros);
    let (Some((first, _)), Some((last, _))) = (latency.classes.first(), latency.classes.last())
    else {
        return "not noted".to_owned();
    };
    let bars: String = (place(first)..=place(last).min(place(first).saturating_add(31)))
        .map(|at| match latency.classes.iter().find(|(end, _)| place(end) == at) {
            Some((_, count)) if *count > 0 => {
                let height = (u128::from(*count) * 8).div_ceil(u128::from(most.max(1)));
                let index = usize::try_from(height.saturating_sub(1)).unwrap_or(0);
                BARS.get(index).copied().unwrap_or('█')
            }
            _ => '·',
        })
        .collect();
    let begins = first.map_or(0, |end| if end <= 1024 { 0 } else { end / 2 });
    let ends = last.map_or_else(|| "more".to_owned(), show_ns);
    let unplaced = match latency.unplaced {
        0 => String::new(),
        count => format!(", {count} not noted"),
    };
    format!("{} {bars} {ends}{unplaced}", show_ns(begins))
}

fn failures(target: &TargetReport, now_us: Option<u64>) -> String {
    let mut rows = vec![row(["failed", "operation", "sector", "why"])];
    rows.extend(target.last_failures.iter().map(|failure| {
        let ago = now_us.and_then(|now| now.checked_sub(failure.boot_us));
        let when = match ago {
            Some(us) => {
                let seconds = Duration::from_secs(us / 1_000_000);
                format!("{} ago", humantime::format_duration(seconds))
            }
            None => format!("{} after the start", show_micros(failure.boot_us)),
        };
        vec![when, failure.operation.clone(), failure.sector.to_string(), failure.status.clone()]
    }));
    table(&rows)
}

fn show_ns(ns: u64) -> String {
    match ns {
        0..=9_999 => format!("{ns} ns"),
        _ => show_micros(ns / 1000),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
