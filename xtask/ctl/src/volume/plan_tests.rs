// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which changes of a volume can be made, and why others cannot.

use super::*;
use crate::volume::target::Agreed;
use crate::volume::wanted::tests::{wanted, STRIPE};

const M: u64 = 1 << 20;

/// The volume that `wanted` is once it exists, with 100 MiB of each target of which it takes all.
fn made(wanted: &Wanted) -> Present {
    let parts = wanted.parts(|_| Some(100 * M)).unwrap();
    let targets = wanted.targets.iter().zip(parts).map(|(target, part)| PresentTarget {
        at: target.at.clone(),
        literal: None,
        bytes: part.unwrap_or(100 * M),
        capacity: (!target.at.is_made_up()).then_some(100 * M),
        agreed: target.agreed,
    });
    Present {
        name: wanted.name,
        device: 0,
        layout: wanted.layout,
        block_bytes: wanted.block_bytes.unwrap_or(512),
        hw_queues: wanted.hw_queues,
        queue_depth: wanted.queue_depth,
        polled: wanted.polled,
        opens: 0,
        is_simple: false,
        targets: targets.collect(),
    }
}

fn decide(wanted: &Wanted, present: &Present) -> Action {
    let capacity = |_: &At| Some(100 * M);
    let around =
        Circumstances { payload: "2.0.0", has_client: true, prune: false, capacity: &capacity };
    plan(std::slice::from_ref(wanted), std::slice::from_ref(present), &around).remove(0).action
}

/// From a volume of these targets to one of those.
fn change(layout: Layout, from: &[&str], to: &[&str]) -> Action {
    decide(&wanted(layout, to), &made(&wanted(layout, from)))
}

fn raise(index: usize, from: u64, to: u64) -> Action {
    let raised = vec![Raise { index, from: from * M, to: to * M }];
    Action::Grow(Growth { raised, appended: Vec::new() })
}

fn assert_refused(action: &Action, why: &str) {
    match action {
        Action::Refused(said) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_linear_volume_grows_at_its_end() {
    let linear = Layout::Linear;
    assert_eq!(change(linear, &["ram:1M"], &["ram:2M"]), raise(0, 1, 2));
    let two = ["bdev:/dev/a", "ram:1M"];
    assert_eq!(change(linear, &two, &["bdev:/dev/a", "ram:3M"]), raise(1, 1, 3));
    let appended = vec![(Target::parse("bdev:/dev/b").unwrap(), None)];
    let both = Growth { raised: vec![Raise { index: 1, from: M, to: 2 * M }], appended };
    let more = ["bdev:/dev/a", "ram:2M", "bdev:/dev/b"];
    assert_eq!(change(linear, &two, &more), Action::Grow(both));
}

#[test]
fn a_volume_in_memory_grows_by_memory_only_and_one_without_targets_not_at_all() {
    let linear = Layout::Linear;
    let grown = change(linear, &["ram:1M"], &["ram:1M", "null:1M"]);
    assert!(matches!(grown, Action::Grow(_)), "{grown:?}");
    assert_refused(
        &change(linear, &["ram:1M"], &["ram:1M", "bdev:/dev/a"]),
        "cannot grow by bdev:/dev/a",
    );
    let present = Present { is_simple: true, ..made(&wanted(linear, &["ram:1M"])) };
    assert_eq!(decide(&wanted(linear, &["ram:1M"]), &present), Action::Unchanged);
    assert_refused(&decide(&wanted(linear, &["ram:2M"]), &present), "made without targets");
}

#[test]
fn whatever_would_move_data_or_shrink_is_refused() {
    let linear = Layout::Linear;
    for (from, to, why) in [
        (&["ram:1M", "ram:1M"][..], &["ram:2M", "ram:1M"][..], "would have to move"),
        (&["ram:1M", "ram:1M"], &["ram:1M"], "would have to move"),
        (&["ram:1M", "null:1M"], &["null:1M", "ram:1M"], "target 1 is ram, not null"),
        (&["bdev:/dev/a"], &["bdev:/dev/b"], "target 1 is bdev:/dev/a, not bdev:/dev/b"),
        (&["nbd://h/a"], &["nbd://h/b"], "target 1 is nbd://h/a"),
        (&["nbd://h/a"], &["nbd://h:1/a"], "target 1 is nbd://h/a"),
        (&["ram:2M"], &["ram:1M"], "does not shrink"),
    ] {
        assert_refused(&change(linear, from, to), why);
    }
    let two = ["ram:1M", "ram:1M"];
    assert_refused(&change(STRIPE, &two, &["ram:1M", "ram:1M", "ram:1M"]), "stripe over 2 targets");
    let present = made(&wanted(linear, &two));
    assert_refused(&decide(&wanted(STRIPE, &two), &present), "it is linear, not stripe");
    let present = made(&wanted(STRIPE, &two));
    let chunks = wanted(Layout::Stripe { chunk_sectors: 64 }, &two);
    assert_refused(&decide(&chunks, &present), "its chunks have 64 KiB, not 32 KiB");
}

#[test]
fn all_targets_of_a_stripe_grow_together() {
    let grown = change(STRIPE, &["ram:1M", "bdev:/dev/a"], &["ram:2M", "bdev:/dev/a"]);
    let Action::Grow(growth) = grown else { panic!("{grown:?}") };
    let raised: Vec<_> = growth.raised.iter().map(|raise| (raise.index, raise.to)).collect();
    assert_eq!(raised, [(0, 2 * M), (1, 2 * M)]);
}

#[test]
fn a_target_that_has_grown_is_taken_whole_where_all_of_it_is_wanted() {
    let linear = wanted(Layout::Linear, &["bdev:/dev/a", "bdev:/dev/b"]);
    let mut present = made(&linear);
    present.targets[0].capacity = Some(300 * M);
    assert_eq!(decide(&linear, &present), Action::Unchanged, "it is not the last one");
    present.targets[1].capacity = Some(300 * M + 100);
    assert_eq!(decide(&linear, &present), raise(1, 100, 300));

    let stripe = wanted(STRIPE, &["bdev:/dev/a", "nbd://h/e"]);
    let mut present = made(&stripe);
    present.targets[0].capacity = Some(300 * M);
    assert_eq!(decide(&stripe, &present), Action::Unchanged, "the smaller one limits it");
    present.targets[1].capacity = Some(200 * M + 4096);
    let Action::Grow(growth) = decide(&stripe, &present) else { panic!() };
    assert!(growth.raised.iter().all(|raise| raise.to == 200 * M));
    present.targets[1].capacity = Some(M);
    assert_eq!(
        decide(&stripe, &present),
        Action::Unchanged,
        "what has become smaller is not asked for"
    );
}

#[test]
fn what_is_fixed_when_a_volume_is_made_is_refused_when_it_differs_and_left_alone_when_it_is_not_named(
) {
    let mut volume = wanted(Layout::Linear, &["nbd://h/e"]);
    let present = Present { block_bytes: 4096, hw_queues: 2, queue_depth: 64, ..made(&volume) };
    assert_eq!(decide(&volume, &present), Action::Unchanged);
    let other = Wanted { block_bytes: Some(512), ..volume.clone() };
    assert_refused(&decide(&other, &present), "its blocks have 4096 bytes");
    let other = Wanted { hw_queues: 3, ..volume.clone() };
    assert_refused(&decide(&other, &present), "2 hardware queues, not 3");
    let other = Wanted { queue_depth: 3, ..volume.clone() };
    assert_refused(&decide(&other, &present), "64 requests per queue, not 3");
    let other = Wanted { polled: true, ..volume.clone() };
    assert_refused(&decide(&other, &present), "without queues for polled I/O");
    assert_eq!(decide(&other, &Present { polled: true, ..present.clone() }), Action::Unchanged);
    assert_eq!(decide(&volume, &Present { polled: true, ..present.clone() }), Action::Unchanged);
    volume.targets[0].agreed = Agreed { connections: 2, ..Agreed::DEFAULT };
    assert_refused(&decide(&volume, &present), "target 1, nbd://h/e, has other terms");
    let mut disk = wanted(Layout::Linear, &["bdev:/dev/a"]);
    let present = made(&disk);
    disk.targets[0].agreed = Agreed { connections: 2, ..Agreed::DEFAULT };
    assert_eq!(decide(&disk, &present), Action::Unchanged, "a disk has no terms");
}

#[test]
fn a_server_is_the_same_by_its_name_or_by_its_address() {
    let by_name = wanted(Layout::Linear, &["nbd://store/e"]);
    let mut present = made(&by_name);
    present.targets[0].literal = Some("10.0.0.1".to_owned());
    let by_address = wanted(Layout::Linear, &["nbd://10.0.0.1/e"]);
    assert_eq!(decide(&by_address, &present), Action::Unchanged);
    assert_refused(
        &decide(&wanted(Layout::Linear, &["nbd://10.0.0.2/e"]), &present),
        "target 1 is",
    );
}

#[test]
fn a_size_of_the_volume_is_met_at_its_end() {
    let volume = |bytes: u64| Wanted {
        bytes: Some(bytes * M),
        ..wanted(Layout::Linear, &["bdev:/dev/a", "bdev:/dev/b"])
    };
    let present = made(&volume(150));
    assert_eq!(decide(&volume(150), &present), Action::Unchanged);
    assert_eq!(decide(&volume(160), &present), raise(1, 50, 60));
    assert_refused(&decide(&volume(140), &present), "does not shrink");
    assert_refused(&decide(&volume(100), &present), "size: 100 MiB do not reach beyond target 1");
}

#[test]
fn one_device_is_not_given_to_two_volumes() {
    let capacity = |_: &At| None;
    let around =
        Circumstances { payload: "2.0.0", has_client: true, prune: false, capacity: &capacity };
    let a = wanted(Layout::Linear, &["bdev:/dev/a"]);
    let b = Wanted { name: Text::new("b"), ..a.clone() };
    let plan = plan(&[a, b], &[], &around);
    assert!(matches!(plan[0].action, Action::Create { .. }));
    assert_refused(&plan[1].action, "bdev:/dev/a belongs to volume db");
}
