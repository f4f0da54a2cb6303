// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What people see of volumes.

use std::collections::BTreeMap;

use super::*;
use crate::report::{ConnectionReport, FailureReport, Work};

fn entry(name: &str, state: &str) -> VolumeEntry {
    VolumeEntry {
        name: name.to_owned(),
        kind: "stripe".to_owned(),
        layout: "stripe".to_owned(),
        targets: vec!["ram:1G".to_owned(), "nbd://store/e".to_owned()],
        state: state.to_owned(),
        device: "/dev/atom0".to_owned(),
        link: Some(format!("/dev/atom/{name}")),
        bytes: 2 << 30,
        block_bytes: 4096,
        hw_queues: 0,
        queue_depth: 0,
        resident_bytes: 0,
        done: BTreeMap::from([("read".to_owned(), Work { ios: 3, bytes: 12288 })]),
        errors: 0,
    }
}

fn target() -> TargetReport {
    TargetReport {
        at: "nbd://store/e".to_owned(),
        kind: "nbd".to_owned(),
        address: Some("10.0.0.1".to_owned()),
        bytes: 1 << 30,
        capacity_bytes: 2 << 30,
        block_bytes: 512,
        state: "retrying".to_owned(),
        since_us: 12_000_000,
        terms: Some(TermsReport {
            on_failure: "hold".to_owned(),
            deadline_ms: 60_000,
            answer_ms: 30_000,
            retry_ms: 5_000,
            retries: 0,
            connections: 2,
            keepalive_s: 30,
        }),
        connected: 1,
        connections: vec![ConnectionReport {
            local_port: 45_332,
            state: "ready".to_owned(),
            sent: 9,
            answered: 8,
        }],
        waiting: 1,
        reconnects: 2,
        resent: 3,
        protocol_errors: 4,
        failures: 5,
        resident_bytes: 0,
        last_error: "nobody answers".to_owned(),
        latency: BTreeMap::from([(
            "read".to_owned(),
            latency(&[(Some(8192), 1), (Some(32768), 8)]),
        )]),
        last_failures: vec![FailureReport {
            boot_us: 5_000_000,
            operation: "read".to_owned(),
            sector: 77,
            status: "damaged medium".to_owned(),
        }],
    }
}

fn latency(classes: &[(Option<u64>, u64)]) -> LatencyReport {
    let count = classes.iter().map(|(_, count)| count).sum();
    LatencyReport {
        count,
        mean_ns: 9_000,
        longest_ns: 20_000,
        unplaced: 0,
        classes: classes.to_vec(),
    }
}

#[test]
fn volumes_are_listed_with_their_targets_and_states() {
    let document = Volumes::new(vec![entry("db", "ready"), entry("longer", "failed")]);
    let text = "name    device      size   layout  targets               state\n\
                db      /dev/atom0  2 GiB  stripe  ram:1G nbd://store/e  ready\n\
                longer  /dev/atom0  2 GiB  stripe  ram:1G nbd://store/e  failed\n";
    assert_eq!(volumes(&document, Paint::PLAIN), text);
    assert_eq!(volumes(&Volumes::new(Vec::new()), Paint::PLAIN), "no volumes\n");
}

#[test]
fn a_volume_is_shown_with_all_that_is_known_of_its_targets() {
    let document = VolumeDocument {
        schema: VolumeDocument::SCHEMA.to_owned(),
        volume: entry("db", "retrying"),
        chunk_bytes: Some(65536),
        targets: vec![target()],
    };
    let text = volume(&document, Some(65_000_000), Paint::PLAIN);
    for part in [
        "volume  db\n",
        "device  /dev/atom0, /dev/atom/db\n",
        "layout  stripe by 64 KiB\n",
        "done    read 3 (12 KiB)\n",
        "\ntarget 1  nbd://store/e\n",
        "  state        retrying for 12.00 s\n",
        "  used         1 GiB of 2 GiB\n",
        "  address      10.0.0.1\n",
        "failed after 1m, then hold; answers within 30s, attempts at most 5s apart, probed after 30s",
        "  connections  1 of 2\n",
        "1 waiting, 3 sent again, 2 reconnects, 4 protocol errors\n",
        "  last error   nobody answers\n",
        "  45332       ready  9     8\n",
        "  read     9      9000 ns  20 us    4096 ns ▁·█ 32 us\n",
        "  1m ago  read       77      damaged medium\n",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(volume(&document, None, Paint::PLAIN).contains("5.00 s after the start"));
}

#[test]
fn a_histogram_has_a_bar_for_each_doubling_and_tells_what_was_not_noted() {
    let draw = |classes: &[(Option<u64>, u64)]| histogram(&latency(classes));
    assert_eq!(draw(&[(Some(1024), 5)]), "0 ns █ 1024 ns");
    assert_eq!(draw(&[(Some(1024), 1), (Some(2048), 1 << 40)]), "0 ns ▁█ 2048 ns");
    assert_eq!(draw(&[(Some(1 << 40), 4), (None, 2)]), "549.76 s █▄ more");
    assert_eq!(draw(&[]), "not noted");
    let some = LatencyReport { unplaced: 7, ..latency(&[(Some(1024), 5)]) };
    assert_eq!(histogram(&some), "0 ns █ 1024 ns, 7 not noted");
    // A document that somebody else has written.
    assert!(draw(&[(Some(u64::MAX), 0), (Some(0), 3), (None, 1 << 60)]).len() < 200);
}

fn step_of(name: &str, action: &str, result: ApplyResult) -> ApplyEntry {
    ApplyEntry {
        name: name.to_owned(),
        action: action.to_owned(),
        detail: format!("how to {action}"),
        result,
        device: (result == ApplyResult::Done).then(|| "/dev/atom3".to_owned()),
    }
}

fn document(outcome: ApplyOutcome, volumes: Vec<ApplyEntry>) -> ApplyDocument {
    let schema = ApplyDocument::SCHEMA.to_owned();
    ApplyDocument { schema, file: "f.toml".to_owned(), outcome, volumes, problem: None }
}

#[test]
fn a_plan_is_marked_by_what_it_does() {
    let volumes = vec![
        step_of("a", "destroy", ApplyResult::NotDone),
        step_of("bb", "create", ApplyResult::NotDone),
        step_of("c", "grow", ApplyResult::NotDone),
        step_of("d", "refused", ApplyResult::NotDone),
        step_of("e", "unchanged", ApplyResult::Nothing),
    ];
    let text = "-  a   destroy    how to destroy\n\
                +  bb  create     how to create\n\
                ~  c   grow       how to grow\n\
                !  d   refused    how to refused\n\
                \x20  e   unchanged  how to unchanged\n";
    assert_eq!(plan(&document(ApplyOutcome::Planned, volumes), Paint::PLAIN), text);
    let nothing = document(ApplyOutcome::Planned, Vec::new());
    assert!(plan(&nothing, Paint::PLAIN).contains("nothing is wanted"));
}

#[test]
fn what_was_done_and_what_was_not_is_told_at_the_end() {
    let done = step_of("a", "create", ApplyResult::Done);
    let failed = step_of("b", "grow", ApplyResult::Failed);
    let left = step_of("c", "create", ApplyResult::NotDone);
    assert_eq!(step(&done, Paint::PLAIN), "a: created, /dev/atom3\n");
    assert_eq!(step(&failed, Paint::PLAIN), "b: grow failed\n");
    let all = document(ApplyOutcome::Failed, vec![done.clone(), failed, left]);
    assert_eq!(applied(&all, Paint::PLAIN), "done      a\nfailed    b\nnot done  c\n");
    assert_eq!(applied(&document(ApplyOutcome::Done, vec![done]), Paint::PLAIN), "1 done\n");
    assert_eq!(applied(&document(ApplyOutcome::Done, Vec::new()), Paint::PLAIN), "nothing to do\n");
}
