// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A file of the journal: as it is, and with a checksum that fits on each line, since nobody finds one by trying. What
//! was read is listed, and each attempt shown.

#![no_main]

use atom_abi::crc32c::crc32c;
use atom_fuzz::budget;
use atomctl::journal::Found;
use atomctl::report::JournalDocument;
use atomctl::text::{self, Paint};
use libfuzzer_sys::fuzz_target;

/// What reading and showing may take for an input of at most 16 KiB. A table is as wide as its longest cell in each
/// of its lines, of which there may be a hundred.
const MAX_ALLOCATED_BYTES: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    budget::within(MAX_ALLOCATED_BYTES, || {
        show(bytes);
        show(&sealed(bytes));
    });
});

fn show(bytes: &[u8]) {
    let found = Found::of_file(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    assert!(found.records.len() + found.damaged <= lines, "more was read than there is");
    let document = JournalDocument::new(&found, "this boot");
    assert!(document.attempts.len() <= found.records.len());
    let listed = text::journal(&document, Paint::PLAIN);
    assert!(listed.lines().count() >= document.attempts.len());
    for one in &document.attempts {
        assert!(!text::attempt(one, Paint::PLAIN).is_empty());
    }
}

/// The same lines, each with a checksum of its own: what stands before the last brace is what was meant.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(end) = line.iter().rposition(|byte| *byte == b'}') else { continue };
        let body = &line[..end];
        let body =
            body.windows(8).rposition(|at| at == b",\"crc\":\"").map_or(body, |at| &body[..at]);
        all.extend_from_slice(body);
        all.extend_from_slice(format!(",\"crc\":\"{:08x}\"}}\n", crc32c(body)).as_bytes());
    }
    all
}
