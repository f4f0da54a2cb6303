// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Files of volumes are carried out against a payload without data.

use proptest::prelude::*;

use super::*;
use crate::problem::Exit;
use crate::volume::fake::Payload;
use crate::volume::file;
use crate::volume::machine::Machine;
use crate::volume::plan::{plan, Circumstances};
use crate::volume::target::At;

fn planned(payload: &Payload, text: &str, prune: bool) -> Vec<Planned> {
    let listed = file::parse(text).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
    let wanted: Vec<Wanted> = listed.into_iter().map(|one| one.volume).collect();
    let live = payload.live().unwrap();
    let capacity = |at: &At| payload.capacity(at);
    let around = Circumstances {
        payload: &live.version,
        has_client: live.has_client,
        prune,
        capacity: &capacity,
    };
    plan(&wanted, &client::present(payload, payload).unwrap(), &around)
}

fn actions(plan: &[Planned]) -> Vec<(String, &'static str)> {
    plan.iter().map(|one| (one.name.as_str().to_owned(), described(&one.action).0)).collect()
}

/// Plans and carries out; the plan and what became of it.
fn applied(payload: &Payload, text: &str, prune: bool) -> (Vec<ApplyEntry>, Option<Problem>) {
    run(payload, payload, &planned(payload, text, prune), |_| ())
}

fn volume(name: &str, rest: &str) -> String {
    format!("[[volume]]\nname = \"{name}\"\n{rest}\n")
}

#[test]
fn a_file_is_carried_out_and_the_second_time_there_is_nothing_to_do() {
    let payload = Payload::new();
    let text = volume("a", "targets = [\"ram:64M\"]")
        + &volume(
            "b",
            "layout = \"stripe\"\nsize = \"1G\"\ntargets = [\"bdev:/dev/b\", \"nbd://store/e\"]",
        );
    let (entries, problem) = applied(&payload, &text, false);
    assert!(problem.is_none());
    assert!(entries.iter().all(|entry| entry.result == ApplyResult::Done));
    assert_eq!(entries[1].device.as_deref(), Some("/dev/atom1"));
    assert_eq!(*payload.settled.borrow(), [0, 1]);
    assert_eq!(payload.bytes("b"), Some(1 << 30));
    let again = planned(&payload, &text, true);
    assert!(again.iter().all(|one| one.action == Action::Unchanged), "{again:?}");
}

#[test]
fn it_stops_at_the_first_failure_and_says_what_was_done_and_what_was_not() {
    let payload = Payload { cursed: Some("b"), ..Payload::new() };
    let text: String = ["a", "b", "c"].map(|name| volume(name, "targets = [\"ram:64M\"]")).concat();
    let (entries, problem) = applied(&payload, &text, false);
    let results: Vec<_> = entries.iter().map(|entry| entry.result).collect();
    assert_eq!(results, [ApplyResult::Done, ApplyResult::Failed, ApplyResult::NotDone]);
    assert!(problem.unwrap().why.contains("it is cursed"));
    let left = planned(&payload, &text, false);
    let left = actions(&left);
    let named = |name: &str, action| (name.to_owned(), action);
    assert_eq!(left, [named("a", "unchanged"), named("b", "create"), named("c", "create")]);
}

#[test]
fn what_is_not_in_the_file_goes_only_when_that_is_asked_for_and_never_while_it_is_in_use() {
    let payload = Payload::new();
    let a = volume("a", "targets = [\"bdev:/dev/a\"]");
    applied(&payload, &(a.clone() + &volume("b", "targets = [\"ram:64M\"]")), false);
    assert_eq!(planned(&payload, &a, false)[1].action, Action::Unlisted);
    payload.open.borrow_mut().push(1);
    let plan = planned(&payload, &a, true);
    let problem = refused(&plan).unwrap();
    assert!(problem.what.contains("Volume b") && problem.why.contains("in use"), "{problem}");
    // Somebody can open it after the plan was made.
    payload.open.borrow_mut().clear();
    let plan = planned(&payload, &a, true);
    payload.open.borrow_mut().push(1);
    let (_, problem) = run(&payload, &payload, &plan, |_| ());
    let problem = problem.unwrap();
    assert_eq!(
        (problem.what.as_str(), problem.exit),
        ("Volume b was not destroyed", Exit::Refused)
    );
    assert!(payload.bytes("b").is_some());
    payload.open.borrow_mut().clear();
    assert!(applied(&payload, &a, true).1.is_none());
    assert_eq!(payload.bytes("b"), None);
}

#[test]
fn who_only_looks_at_a_volume_does_not_keep_it() {
    let payload = Payload::new();
    let [a, b] = ["a", "b"].map(|name| volume(name, "targets = [\"ram:64M\"]"));
    applied(&payload, &(a.clone() + &b), false);
    for device in [0, 1] {
        payload.open.borrow_mut().push(device);
        payload.looking.borrow_mut().push(device);
    }
    let listed: Vec<Wanted> = file::parse(&a).unwrap().into_iter().map(|one| one.volume).collect();
    let present = present_unused(&payload, &payload, &listed).unwrap();
    let opens: Vec<_> = present.iter().map(|volume| volume.opens).collect();
    assert_eq!(opens, [1, 0], "who has a volume open that stays is left alone");
    super::destroy(&payload, &payload, Text::new("a")).unwrap();
    assert_eq!(payload.bytes("a"), None);
}

#[test]
fn what_a_pruned_volume_gives_free_can_be_used_by_a_new_one() {
    let payload = Payload::new();
    applied(&payload, &volume("old", "targets = [\"bdev:/dev/a\"]"), false);
    let new = volume("new", "targets = [\"bdev:/dev/a\"]");
    let kept = planned(&payload, &new, false);
    assert!(refused(&kept).unwrap().why.contains("bdev:/dev/a belongs to volume old"));
    let (entries, problem) = applied(&payload, &new, true);
    assert!(problem.is_none(), "{problem:?}");
    assert_eq!(entries[0].action, "destroy");
}

#[test]
fn a_payload_without_the_client_gets_the_volumes_that_it_can_have() {
    let payload = Payload::without_client();
    let ram = volume("a", "targets = [\"ram:64M\"]");
    assert!(applied(&payload, &ram, false).1.is_none());
    assert_eq!(*payload.seen.borrow(), ["create a"]);
    assert_eq!(planned(&payload, &ram, false)[0].action, Action::Unchanged);
    let more = ram.replace("64M", "128M");
    let why = refused(&planned(&payload, &more, false)).unwrap().why;
    assert!(why.contains("payload 1.2.0 cannot"), "{why}");
    let nbd = volume("b", "targets = [\"nbd://store/e\"]");
    let why = refused(&planned(&payload, &nbd, false)).unwrap().why;
    assert!(why.contains("payload 1.2.0") && why.contains("2.0.0"), "{why}");
}

#[test]
fn growth_is_told_in_words() {
    let payload = Payload::new();
    let a = |rest: &str| volume("a", &format!("targets = [{rest}]"));
    applied(&payload, &a("{at = \"bdev:/dev/a\", size = \"64M\"}"), false);
    let told = |text: &str| entries(&planned(&payload, text, false))[0].detail.clone();
    let both = "{at = \"bdev:/dev/a\", size = \"1G\"}, \"bdev:/dev/b\"";
    assert_eq!(told(&a(both)), "target 1 from 64 MiB to 1 GiB, and all of bdev:/dev/b");
    let one = "{at = \"bdev:/dev/a\", size = \"64M\"}, \"ram:1M\"";
    assert_eq!(told(&a(one)), "1 MiB of ram");
    let stripe = volume("b", "layout = \"stripe\"\ntargets = [\"ram:1G\"]");
    assert_eq!(told(&stripe), "stripe by 64 KiB: 1 GiB of ram");
}

/// Targets that a volume can have, of its own.
fn targets(volume: usize) -> impl Strategy<Value = Vec<String>> {
    let one = move |index: usize| {
        prop_oneof![
            (1u64..64).prop_map(|size| format!("\"ram:{}M\"", size)),
            (1u64..64).prop_map(|size| format!("\"null:{}M\"", size)),
            Just(format!("\"bdev:/dev/d{volume}-{index}\"")),
            Just(format!("{{at = \"nbd://store/{volume}-{index}\", retries = 3}}")),
            (1u64..64).prop_map(move |size| {
                format!("{{at = \"bdev:/dev/d{volume}-{index}\", size = \"{size}M\"}}")
            }),
        ]
    };
    (1usize..4).prop_flat_map(move |count| (0..count).map(one).collect::<Vec<_>>())
}

/// A volume of a file; such a file may still ask for what cannot be.
fn any_volume(index: usize) -> impl Strategy<Value = String> {
    let layout = prop_oneof![Just("linear"), Just("stripe")];
    let size = prop::option::of(1u64..256);
    (targets(index), layout, size).prop_map(move |(targets, layout, size)| {
        let size = size.map_or_else(String::new, |size| format!("size = \"{size}M\"\n"));
        let rest = format!("layout = \"{layout}\"\n{size}targets = [{}]", targets.join(", "));
        volume(&format!("v{index}"), &rest)
    })
}

fn any_file() -> impl Strategy<Value = String> {
    (any_volume(0), any_volume(1), any_volume(2), 0usize..8).prop_map(|(a, b, c, which)| {
        let chosen = [a, b, c].into_iter().enumerate().filter(|(index, _)| which >> index & 1 == 1);
        chosen.map(|(_, volume)| volume).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn after_any_two_files_planning_the_last_again_gives_nothing_to_do(
        first in any_file(),
        second in any_file(),
        grown in 1u64..4,
        prune: bool,
    ) {
        let payload = Payload::new();
        for (text, prune) in [(&first, false), (&second, prune)] {
            if file::parse(text).is_err() {
                continue;
            }
            let plan = planned(&payload, text, prune);
            if refused(&plan).is_some() {
                continue;
            }
            let before: Vec<Option<u64>> = plan.iter().map(|one| payload.bytes(one.name.as_str())).collect();
            let (entries, problem) = run(&payload, &payload, &plan, |_| ());
            prop_assert!(problem.is_none(), "{problem:?}\n{text}");
            for (entry, before) in entries.iter().zip(before) {
                let after = payload.bytes(&entry.name);
                match entry.action.as_str() {
                    "create" => prop_assert!(before.is_none() && after.is_some()),
                    "grow" => prop_assert!(before < after),
                    "destroy" => prop_assert!(prune && before.is_some() && after.is_none()),
                    _ => prop_assert_eq!(before, after),
                }
            }
            let again = planned(&payload, text, prune);
            let quiet = |one: &Planned| matches!(one.action, Action::Unchanged | Action::Unlisted);
            prop_assert!(again.iter().all(quiet), "{again:?}\n{text}");
            // Targets that grow later.
            for volume in 0..3 {
                for index in 0..4 {
                    payload.set_size(&format!("bdev:/dev/d{volume}-{index}"), grown << 30);
                }
            }
        }
    }

    #[test]
    fn a_plan_asks_for_nothing_and_changes_nothing(first in any_file(), second in any_file(), prune: bool) {
        let payload = Payload::new();
        if file::parse(&first).is_ok() && refused(&planned(&payload, &first, false)).is_none() {
            applied(&payload, &first, false);
        }
        let asked = payload.seen.borrow().len();
        if file::parse(&second).is_ok() {
            let plan = planned(&payload, &second, prune);
            prop_assert_eq!(&plan, &planned(&payload, &second, prune));
            let destroys = plan.iter().any(|one| one.action == Action::Destroy);
            prop_assert!(prune || !destroys);
        }
        prop_assert_eq!(payload.seen.borrow().len(), asked);
    }
}
