// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Files of volumes. What is understood can be planned, and a mistake is told with a line of the file.

#![no_main]

use atom_fuzz::budget;
use atomctl::volume::file;
use atomctl::volume::plan::{plan, Action, Circumstances};
use atomctl::volume::target::At;
use libfuzzer_sys::fuzz_target;

/// What the parser and the messages may take for an input of at most 16 KiB. Nothing of it is sized by a number
/// in the file.
const MAX_ALLOCATED_BYTES: usize = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let listed = match budget::within(MAX_ALLOCATED_BYTES, || file::parse(text)) {
        Ok(listed) => listed,
        Err(wrong) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&wrong.line), "line {} of {lines}", wrong.line);
            assert!(!wrong.why.is_empty(), "a mistake has a reason");
            return;
        }
    };
    let wanted: Vec<_> = listed.into_iter().map(|one| one.volume).collect();
    let capacity = |at: &At| (!at.is_made_up()).then_some(1 << 30);
    let around =
        Circumstances { payload: "2.0.0", has_client: true, prune: true, capacity: &capacity };
    let planned = plan(&wanted, &[], &around);
    assert_eq!(planned.len(), wanted.len(), "there is a step for each volume");
    for (step, volume) in planned.iter().zip(&wanted) {
        assert_eq!(volume.check(), Ok(()), "what was understood can be");
        match &step.action {
            Action::Create { parts, .. } => assert_eq!(parts.len(), volume.targets.len()),
            Action::Refused(why) => assert!(!why.is_empty(), "a refusal has a reason"),
            other => panic!("{other:?}"),
        }
    }
});
