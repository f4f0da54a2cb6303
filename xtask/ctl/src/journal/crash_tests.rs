// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The journal is true, whatever happens while it is written.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;

use super::fake::{Killed, Machine, Trouble, Which, IN_A_THREAD};
use super::line::encode;
use super::store::Flow;
use super::tests::began;
use super::{log, Journal, Record};

/// Long enough for the steps in memory, however busy this machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn journal(machine: &Machine, limit: usize, flows: fn() -> bool) -> Journal {
    let (disk, memory) = (machine.folder(Which::Disk), machine.folder(Which::Memory));
    Journal::of(disk, memory, limit, PATIENCE, Flow { flows, is_apart: never }).aside(IN_A_THREAD)
}

fn always() -> bool {
    true
}

fn never() -> bool {
    false
}

fn numbers(records: &[Record]) -> Vec<u64> {
    records.iter().filter_map(Record::identity).map(|one| one.attempt).collect()
}

/// Writes records 1 to `count`, and tells which of them were said to be on the disk. It may be killed on the way.
fn write(journal: &Journal, count: u64) -> Vec<u64> {
    let mut safe = Vec::new();
    for number in 1..=count {
        let written = catch_unwind(AssertUnwindSafe(|| journal.write(&began(number))));
        match written {
            Ok(Ok(())) => safe.push(number),
            Ok(Err(_)) => {}
            Err(payload) if payload.is::<Killed>() => return safe,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
    safe
}

/// What stands in a journal of three records after something has happened to the bytes of its file.
fn after(change: impl FnOnce(&mut Vec<u8>)) -> (Machine, super::Found) {
    let machine = Machine::default();
    let journal = journal(&machine, log::LIMIT, always);
    assert_eq!(write(&journal, 3), [1, 2, 3]);
    machine.change(log::NAME, change);
    let found = journal.read();
    (machine, found)
}

#[test]
fn a_file_that_ends_anywhere_has_all_records_that_end_before_and_takes_new_ones() {
    let ends: Vec<usize> = (1..=3)
        .scan(0, |end, number| {
            *end += encode(&began(number)).unwrap().len();
            Some(*end)
        })
        .collect();
    for length in 0..=ends[2] {
        let (machine, found) = after(|bytes| bytes.truncate(length));
        let whole = ends.iter().filter(|end| **end <= length).count() as u64;
        assert_eq!(numbers(&found.records), (1..=whole).collect::<Vec<_>>(), "{length}");
        assert_eq!(found.damaged, 0);
        let torn = length != 0 && !ends.contains(&length);
        assert_eq!(found.notes.len(), usize::from(torn), "{:?}", found.notes);

        let journal = journal(&machine, log::LIMIT, always);
        journal.write(&began(9)).unwrap();
        let found = journal.read();
        assert_eq!(numbers(&found.records), (1..=whole).chain([9]).collect::<Vec<_>>());
        assert_eq!((found.damaged, found.notes.len()), (0, 0), "{:?}", found.notes);
    }
}

#[test]
fn any_changed_bit_costs_the_records_that_it_is_in_and_no_other() {
    let length = encode(&began(1)).unwrap().len();
    for at in 0..3 * length {
        for bit in 0..8 {
            let (_, found) = after(|bytes| bytes[at] ^= 1 << bit);
            let hit = (at / length) as u64 + 1;
            let left: Vec<u64> = (1..=3).filter(|number| *number != hit).collect();
            let there = numbers(&found.records);
            // Without its end a record takes the next one with it.
            let end = (at + 1) % length == 0;
            let next_too: Vec<u64> = left.iter().copied().filter(|n| *n != hit + 1).collect();
            assert!(there == left || (end && there == next_too), "byte {at} bit {bit}: {there:?}");
            assert!(found.damaged + found.notes.len() > 0, "byte {at} bit {bit} is not noticed");
        }
    }
}

#[test]
fn a_tool_that_is_killed_at_any_step_loses_no_record_that_it_has_written() {
    let machine = Machine::default();
    write(&journal(&machine, 1000, always), 6);
    let steps = machine.steps();
    assert!(steps > 20, "{steps}");
    for step in 0..steps {
        let machine = Machine::default();
        machine.trouble_at(step, Trouble::Kill);
        let safe = write(&journal(&machine, 1000, always), 6);
        machine.repair();
        let next = journal(&machine, 1000, always);
        let found = numbers(&next.read().records);
        assert!(safe.iter().all(|number| found.contains(number)), "{step}: {safe:?}, {found:?}");
        next.write(&began(9)).unwrap();
        let found = numbers(&next.read().records);
        let mut once = found.clone();
        once.dedup();
        assert_eq!(found, once, "step {step}");
        assert_eq!(found.last(), Some(&9), "step {step}");
    }
}

#[test]
fn a_disk_that_fails_at_any_step_leaves_the_record_in_memory_until_it_works_again() {
    let machine = Machine::default();
    write(&journal(&machine, 500, always), 3);
    let (mut failed, steps) = (0, machine.steps());
    for step in 0..steps {
        for errno in [Errno::ENOSPC, Errno::EROFS, Errno::EIO] {
            let machine = Machine::default();
            machine.trouble_at(step, Trouble::Error(errno));
            let journal = journal(&machine, 500, always);
            let safe = write(&journal, 3);
            failed += usize::from(safe.len() < 3);
            assert_eq!(numbers(&journal.read().records), [1, 2, 3], "{step} {errno}");
            machine.repair();
            journal.flush().unwrap();
            // Memory is gone now.
            machine.cut_power(0, false);
            assert_eq!(numbers(&journal.read().records), [1, 2, 3], "{step} {errno}");
        }
    }
    // Behind the last step on the disk nothing is left to fail.
    assert!(failed >= 3 * (steps - 2), "{failed} of {steps} steps");
}

#[test]
fn while_io_is_held_nothing_touches_the_disk() {
    let machine = Machine::default();
    machine.trouble_at(0, Trouble::Error(Errno::EIO));
    let held = journal(&machine, 500, never);
    assert_eq!(write(&held, 2), [1, 2]);
    assert_eq!(numbers(&held.read().records), [1, 2]);
    machine.repair();
    let flowing = journal(&machine, 500, always);
    flowing.write(&began(3)).unwrap();
    machine.cut_power(0, false);
    assert_eq!(numbers(&flowing.read().records), [1, 2, 3]);
}

proptest! {
    #[test]
    fn a_power_cut_at_any_step_keeps_every_record_that_was_said_to_be_on_the_disk(
        step in 0usize..120, keep in 0usize..400, names: bool, limit in 200usize..2000,
    ) {
        let machine = Machine::default();
        machine.trouble_at(step, Trouble::Kill);
        let safe = write(&journal(&machine, limit, always), 8);
        machine.cut_power(keep, names);
        let next = journal(&machine, limit, always);
        let found = next.read();
        let there = numbers(&found.records);
        // Of many small files only the last ones are kept.
        let kept = there.first().copied().unwrap_or(u64::MAX);
        for number in safe.iter().filter(|number| **number >= kept) {
            prop_assert!(there.contains(number), "{} is not among {:?}", number, there);
        }
        prop_assert!(safe.is_empty() || !there.is_empty());
        prop_assert_eq!(found.damaged, 0);
        next.write(&began(9)).unwrap();
        let last = numbers(&next.read().records).last().copied();
        prop_assert_eq!(last, Some(9));
    }
}
