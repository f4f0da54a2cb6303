// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Recoveries from every step at which an upgrade, or a recovery, can die.

use std::time::Duration;

use super::super::fake_node::{FakeNode, Step};
use super::super::tests::{file, machine, upgrade_on, NEW, OLD};
use super::super::{Soak, Terms};
use super::tests::{run, serves, A, B, WISHES};
use super::Wish;
use crate::node::Node;
use crate::report::RecoveryOutcome;

/// An upgrade, by its name.
type Upgrade = (&'static str, fn(&FakeNode));

fn upgrades() -> Vec<Upgrade> {
    fn way(node: &FakeNode, cold: bool, terms: &Terms) {
        upgrade_on(node, file(B), cold.then(|| file(A)), false, terms);
    }
    vec![
        ("warm", |node| way(node, false, &Terms::default())),
        ("cold", |node| way(node, true, &Terms::default())),
        ("warm, and the candidate does not adopt", |node| {
            node.fail(Step::Adopt, 1);
            way(node, false, &Terms::default());
        }),
        ("cold, and the candidate does not adopt", |node| {
            node.fail(Step::Adopt, 1);
            way(node, true, &Terms::default());
        }),
        ("cold, and the candidate is not inserted", |node| {
            node.fail(Step::Insert, 1);
            way(node, true, &Terms::default());
        }),
        ("with a soak", |node| {
            let (time, stall) = (Duration::from_secs(3), Duration::from_secs(1));
            let soak = Soak { time, stall, max_errors: 0, canary: true };
            way(node, false, &Terms { soak: Some(soak), ..Terms::default() });
        }),
    ]
}

#[test]
fn wherever_an_upgrade_dies_recover_brings_service_back_in_every_direction() {
    for (name, upgrade) in upgrades() {
        for wish in WISHES {
            for steps in 1.. {
                let node = machine();
                if !node.dies_after(steps, upgrade) {
                    assert!(steps > 3, "{name} has more steps than {steps}");
                    break;
                }
                node.heal();
                let done = run(&node, wish, true, None, false).unwrap();
                let at = format!("{name}, {wish:?} after {steps}: {done:?}");
                assert!(serves(&node), "{at}");
                assert_eq!(done.outcome.exit().code(), 0, "{at}");
                assert_eq!(node.status().unwrap().parked, 0, "{at}");
                assert!(!node.loaded().is_empty() && node.loaded().len() <= 2, "{at}");
                let again = run(&node, wish, true, None, false).unwrap();
                assert_eq!(again.outcome, RecoveryOutcome::Nothing, "{at}");
                if wish == Wish::Finish {
                    assert_eq!(node.loaded().len(), 1, "{at}");
                }
            }
        }
    }
}

#[test]
fn a_soak_that_was_cut_short_goes_back_or_forth_as_asked_for() {
    let (_, upgrade) = upgrades().pop().unwrap();
    for (wish, version, module) in [(Wish::Undo, A, OLD), (Wish::Finish, B, NEW)] {
        let node = machine();
        // Inserted, the terms set, switched, the terms taken back.
        assert!(node.dies_after(4, upgrade));
        assert_ne!(node.status().unwrap().parked, 0);
        run(&node, wish, true, None, false).unwrap();
        assert_eq!((node.serving().as_str(), node.loaded()), (version, vec![module.to_owned()]));
    }
}

#[test]
fn a_recovery_that_dies_as_its_upgrade_did_is_finished_by_another_one() {
    for (name, upgrade) in upgrades() {
        for died in 1.. {
            let whole = machine();
            if !whole.dies_after(died, upgrade) {
                break;
            }
            for wish in WISHES {
                for died_again in 1.. {
                    let node = machine();
                    node.dies_after(died, upgrade);
                    node.heal();
                    let dies = node.dies_after(died_again, |node| {
                        run(node, wish, true, None, false).unwrap();
                    });
                    if !dies {
                        break;
                    }
                    let done = run(&node, Wish::Least, true, None, false).unwrap();
                    assert!(serves(&node), "{name}, {died}, {wish:?}, {died_again}: {done:?}");
                }
            }
        }
    }
}

#[test]
fn terms_that_a_dead_tool_has_left_in_atom_are_told() {
    let (_, upgrade) = upgrades().pop().unwrap();
    let node = machine();
    // Inserted, the terms set.
    assert!(node.dies_after(2, upgrade));
    let done = run(&node, Wish::Least, true, None, false).unwrap();
    assert!(done.left.iter().any(|left| left.contains("--soak 0s")), "{done:?}");
}
