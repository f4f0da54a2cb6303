// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Points, lines and counting.

use std::sync::atomic::{AtomicU64, Ordering};

use atom_failpoint::fault::{spoil, Fault, Kind, Kinds, MAX_DELAY_MS, MAX_ERRNO};
use atom_failpoint::line::{carry_out, Refused};
use atom_failpoint::point::Failpoint;
use atom_failpoint::trigger::{Trigger, MILLION};
use proptest::prelude::*;

const ANY: Kinds = Kinds::NONE
    .with(Kind::Error)
    .with(Kind::NoMemory)
    .with(Kind::Delay)
    .with(Kind::Hang)
    .with(Kind::Data)
    .with(Kind::Oops);

fn point() -> Failpoint {
    Failpoint::new("atom.switch.freeze", ANY)
}

fn set(point: &Failpoint, line: &str) -> Result<(), Refused> {
    carry_out(&[point], line.as_bytes())
}

fn passes(point: &Failpoint, times: usize) -> Vec<bool> {
    (0..times).map(|_| point.pass().is_some()).collect()
}

#[test]
fn a_point_that_is_not_armed_does_nothing_and_counts_nothing() {
    let point = point();
    assert_eq!(passes(&point, 3), [false; 3]);
    assert_eq!((point.passed(), point.hit()), (0, 0));
}

#[test]
fn without_a_trigger_every_pass_is_struck() {
    let point = point();
    set(&point, "atom.switch.freeze error").unwrap();
    assert_eq!(passes(&point, 3), [true; 3]);
    assert_eq!((point.passed(), point.hit()), (3, 3));
}

#[test]
fn the_next_passes_are_struck_and_no_more() {
    let point = point();
    set(&point, "atom.switch.freeze error=ENOSPC next=2\n").unwrap();
    assert_eq!(point.pass().unwrap().fault, Fault { kind: Kind::Error, argument: 28 });
    assert_eq!(passes(&point, 3), [true, false, false]);
    assert_eq!((point.passed(), point.hit()), (4, 2));
}

#[test]
fn one_pass_is_struck_after_those_that_are_skipped() {
    let point = point();
    set(&point, "atom.switch.freeze no_memory after=2").unwrap();
    assert_eq!(passes(&point, 5), [false, false, true, false, false]);
}

#[test]
fn a_chance_strikes_about_so_often_and_the_same_passes_with_the_same_seed() {
    let struck = |seed: u32| {
        let point = point();
        set(&point, &format!("atom.switch.freeze error chance=250000 seed={seed}")).unwrap();
        passes(&point, 4000)
    };
    let once = struck(7);
    assert_eq!(once, struck(7));
    assert_ne!(once, struck(8));
    let hits = once.iter().filter(|hit| **hit).count();
    assert!((850..1150).contains(&hits), "{hits} of 4000");
}

#[test]
fn no_chance_counts_passes_and_never_strikes() {
    let point = point();
    set(&point, "atom.switch.freeze oops chance=0 seed=0").unwrap();
    assert_eq!(passes(&point, 1000), [false; 1000]);
    assert_eq!((point.passed(), point.hit()), (1000, 0));
}

#[test]
fn a_new_arming_counts_from_the_beginning() {
    let point = point();
    set(&point, "atom.switch.freeze error next=1").unwrap();
    assert_eq!(passes(&point, 2), [true, false]);
    set(&point, "atom.switch.freeze error next=1").unwrap();
    assert_eq!((point.passed(), point.hit()), (0, 0));
    assert_eq!(passes(&point, 2), [true, false]);
}

#[test]
fn off_is_for_one_point_or_for_all() {
    let (one, other) = (point(), Failpoint::new("atom.drain.wait", ANY));
    let both = [&one, &other];
    let arm = || {
        carry_out(&both, b"atom.switch.freeze error").unwrap();
        carry_out(&both, b"atom.drain.wait delay=5").unwrap();
    };
    arm();
    carry_out(&both, b"atom.drain.wait off").unwrap();
    assert!(one.pass().is_some() && other.pass().is_none());
    arm();
    carry_out(&both, b"off\n").unwrap();
    assert!(one.pass().is_none() && other.pass().is_none());
}

#[test]
fn who_hangs_goes_on_at_the_release_and_nobody_hangs_after_it() {
    for line in ["atom.switch.freeze release", "atom.switch.freeze off", "off"] {
        let point = point();
        set(&point, "atom.switch.freeze hang").unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let hit = point.pass().unwrap();
                point.hang(&hit, std::thread::yield_now);
            });
            while point.waiting() == 0 {
                std::thread::yield_now();
            }
            assert!(!waits.is_finished());
            set(&point, line).unwrap();
            waits.join().unwrap();
        });
        assert_eq!(point.waiting(), 0);
        assert!(point.pass().is_none(), "{line}");
    }
}

#[test]
fn a_release_leaves_what_does_not_hang() {
    let point = point();
    set(&point, "atom.switch.freeze error").unwrap();
    set(&point, "atom.switch.freeze release").unwrap();
    assert!(point.pass().is_some());
}

#[test]
fn a_point_is_shown_with_what_it_can_do_what_it_does_and_what_it_did() {
    let kinds = Kinds::NONE.with(Kind::Error).with(Kind::Delay);
    let point = Failpoint::new("payload.adopt.claim", kinds);
    let shown = || point.to_string();
    let begin = "payload.adopt.claim kinds=error,delay";
    assert_eq!(shown(), format!("{begin} armed=no passed=0 hit=0 waiting=0"));
    set(&point, "payload.adopt.claim error=5 next=1").unwrap();
    passes(&point, 2);
    assert_eq!(shown(), format!("{begin} armed=error=5,next=1 passed=2 hit=1 waiting=0"));
    set(&point, "payload.adopt.claim delay=20 chance=5 seed=9").unwrap();
    assert_eq!(shown(), format!("{begin} armed=delay=20,chance=5,seed=9 passed=0 hit=0 waiting=0"));
}

#[test]
fn what_is_no_line_is_refused_and_changes_nothing() {
    let point = Failpoint::new("atom.drain.wait", Kinds::NONE.with(Kind::Error));
    set(&point, "atom.drain.wait error=7").unwrap();
    let before = point.to_string();
    let invalid: &[&str] = &[
        "",
        "\n",
        "atom.drain.wait",
        "atom.drain.wait error=0",
        "atom.drain.wait error=4096",
        "atom.drain.wait error=-5",
        "atom.drain.wait error=",
        "atom.drain.wait error=EWHAT",
        "atom.drain.wait error next",
        "atom.drain.wait error next=",
        "atom.drain.wait error next=+1",
        "atom.drain.wait error next=1 after=1",
        "atom.drain.wait error chance=5",
        "atom.drain.wait error chance=1000001 seed=1",
        "atom.drain.wait error seed=1 chance=5",
        "atom.drain.wait off now",
        "atom.drain.wait release next=1",
        "atom.drain.wait no_memory=1",
        "atom.drain.wait delay=60001",
        "atom.drain.wait hang=1",
        "atom.drain.wait wait",
        "atom.drain.wait error=5\natom.drain.wait off",
        "atom.nothing off what",
    ];
    for line in invalid {
        assert_eq!(set(&point, line), Err(Refused::Invalid), "{line:?}");
    }
    assert_eq!(carry_out(&[&point], b"\xff off"), Err(Refused::Invalid));
    assert_eq!(set(&point, "atom.drain error"), Err(Refused::Unknown));
    assert_eq!(set(&point, "atom.drain.wait delay"), Err(Refused::Impossible));
    assert_eq!(point.to_string(), before);
}

#[test]
fn one_bit_of_the_data_is_spoilt() {
    let mut data = [0u8; 4];
    spoil(&mut data, 6);
    assert_eq!(data, [0, 0, 1, 0]);
    spoil(&mut [], 3);
}

#[test]
fn passes_on_many_processors_are_struck_as_often_as_was_asked() {
    const THREADS: u64 = 4;
    const EACH: u64 = 2000;
    let point = point();
    set(&point, "atom.switch.freeze error next=1234").unwrap();
    let hits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let own = (0..EACH).filter(|_| point.pass().is_some()).count();
                hits.fetch_add(own as u64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(hits.into_inner(), 1234);
    assert_eq!((point.passed(), point.hit()), (THREADS * EACH, 1234));
}

#[test]
fn a_pass_beside_an_arming_is_of_the_one_before_or_of_the_new_one() {
    const ARMINGS: u32 = 2000;
    let point = point();
    let stop = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let passes = scope.spawn(|| {
            while stop.load(Ordering::SeqCst) == 0 {
                if let Some(hit) = point.pass() {
                    // Each arming says the same with its kind and with its argument.
                    match hit.fault.kind {
                        Kind::Error => assert!(hit.fault.argument <= MAX_ERRNO),
                        _ => assert_eq!(hit.fault.argument, MAX_DELAY_MS),
                    }
                }
            }
        });
        for _ in 0..ARMINGS {
            let error = Fault { kind: Kind::Error, argument: MAX_ERRNO };
            point.arm(error, Trigger::Next(1));
            assert!(point.hit() <= 1);
            let delay = Fault { kind: Kind::Delay, argument: MAX_DELAY_MS };
            point.arm(delay, Trigger::Always);
        }
        stop.store(1, Ordering::SeqCst);
        passes.join().unwrap();
    });
}

proptest! {
    #[test]
    fn no_line_does_harm(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        let point = point();
        // Whatever it answers, the point can still be shown and set.
        let _ = carry_out(&[&point], &line);
        prop_assert!(point.to_string().starts_with("atom.switch.freeze "));
        prop_assert_eq!(carry_out(&[&point], b"off"), Ok(()));
    }

    #[test]
    fn what_is_shown_can_be_set_again(
        kind in proptest::sample::select(&Kind::ALL[..]),
        argument in 1..=MAX_ERRNO,
        trigger in prop_oneof![
            Just(Trigger::Always),
            any::<u32>().prop_map(Trigger::Next),
            any::<u32>().prop_map(Trigger::After),
            (0..=MILLION, any::<u32>()).prop_map(|(ppm, seed)| Trigger::Chance { ppm, seed }),
        ],
    ) {
        let has = matches!(kind, Kind::Error | Kind::Delay | Kind::Data);
        let fault = Fault { kind, argument: if has { argument } else { 0 } };
        let (first, second) = (point(), point());
        first.arm(fault, trigger);
        prop_assert_eq!(first.state(), Some((fault, trigger)));
        let shown = first.to_string();
        let armed = shown.split(" armed=").nth(1).unwrap().split(' ').next().unwrap();
        set(&second, &format!("atom.switch.freeze {}", armed.replace(',', " "))).unwrap();
        prop_assert_eq!(second.state(), first.state());
    }

    #[test]
    fn as_many_are_struck_as_the_trigger_says(times in 0..60u32, passes in 0..80u64) {
        let struck = |trigger: Trigger| (0..passes).filter(|pass| trigger.strikes(*pass)).count();
        prop_assert_eq!(struck(Trigger::Next(times)) as u64, passes.min(times.into()));
        prop_assert_eq!(struck(Trigger::After(times)), usize::from(passes > times.into()));
        prop_assert_eq!(struck(Trigger::Chance { ppm: MILLION, seed: times }) as u64, passes);
        prop_assert_eq!(struck(Trigger::Chance { ppm: 0, seed: times }), 0);
    }
}
