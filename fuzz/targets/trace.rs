// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What an upgrade report and the samples around it say, drawn as a page: two lines, the report and the trace. Both lie
//! in files that anything may have happened to.

#![no_main]

use atom_fuzz::budget;
use atomctl::html;
use atomctl::report::AttemptEntry;
use atomctl::trace::Trace;
use libfuzzer_sys::fuzz_target;

/// What parsing and the page may take for an input of at most 16 KiB: some shapes of SVG for each sample.
const MAX_ALLOCATED_BYTES: usize = 32 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (attempt, trace) = text.split_once('\n').unwrap_or((text, ""));
    budget::within(MAX_ALLOCATED_BYTES, || {
        let Ok(attempt) = serde_json::from_str::<AttemptEntry>(attempt) else { return };
        let trace: Option<Trace> = serde_json::from_str(trace).ok();
        let page = html::page(&attempt, trace.as_ref());
        assert!(
            page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"),
            "{page}"
        );
        assert!(!page.contains("NaN") && !page.contains("inf\""), "a place that is none");
    });
});
