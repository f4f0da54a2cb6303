// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Tests that run beside each other.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::Verdict;
use crate::host;

/// Memory that a guest takes at most with all that serves it, in MiB.
const GUEST_MIB: u64 = 4 << 10;
/// With more guests beside each other the shares of the processors get short against the limits of the scenarios.
const MOST: usize = 4;

/// How many guests this machine has room for: one a processor, as far as the memory goes.
pub fn usual() -> NonZeroUsize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let memory = host::available_memory_mib().map_or(1, |mib| mib / GUEST_MIB);
    let fit = processors.min(usize::try_from(memory).unwrap_or(MOST)).clamp(1, MOST);
    NonZeroUsize::new(fit).unwrap_or(NonZeroUsize::MIN)
}

/// Runs the jobs in so many streams, each of which takes the next one in its order, and reports each as it ends.
pub fn run<J: Send>(
    jobs: impl IntoIterator<Item = J>,
    streams: NonZeroUsize,
    carry_out: impl Fn(J) -> Verdict + Sync,
    report: impl FnMut(Verdict) + Send,
) {
    let waiting: Mutex<VecDeque<J>> = Mutex::new(jobs.into_iter().collect());
    let report = Mutex::new(report);
    // A test that panics ends its stream, and the panic comes out at the end of the scope.
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..streams.get() {
            scope.spawn(|| {
                while let Some(job) = next() {
                    let verdict = carry_out(job);
                    (report.lock().unwrap_or_else(PoisonError::into_inner))(verdict);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn verdict(name: usize) -> Verdict {
        Verdict {
            name: name.to_string(),
            passed: true,
            seconds: 0.0,
            why: None,
            facts: serde_json::Map::new(),
        }
    }

    fn names(
        jobs: usize,
        streams: usize,
        carry_out: impl Fn(usize) -> Verdict + Sync,
    ) -> Vec<String> {
        let mut names = Vec::new();
        let streams = NonZeroUsize::new(streams).unwrap();
        run(0..jobs, streams, carry_out, |verdict| names.push(verdict.name));
        names
    }

    #[test]
    fn one_stream_keeps_the_order() {
        assert_eq!(names(4, 1, verdict), ["0", "1", "2", "3"]);
    }

    #[test]
    fn every_job_is_done_once_and_two_at_the_same_time() {
        // Nobody gets past it alone.
        let both = Barrier::new(2);
        let mut names = names(6, 2, |job| {
            both.wait();
            verdict(job)
        });
        names.sort();
        assert_eq!(names, ["0", "1", "2", "3", "4", "5"]);
    }

    #[test]
    fn more_streams_than_jobs_do_no_harm() {
        assert_eq!(names(0, 3, verdict), [""; 0]);
        assert_eq!(names(1, 3, verdict), ["0"]);
    }
}
