// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a kernel that looks for defects says of a task that it has killed in an oops: the task's own end breaks rules, and what it
//! had is lost. That is the oops once more, and no other defect.

use std::ops::RangeInclusive;

/// What begins the complaint that the end of a task sleeps where the task was when it was killed.
const SLEEPS: &str = "BUG: sleeping function called";
/// What ends a task that was killed; it must be in that complaint.
const END_OF_TASK: &str = "make_task_dead+";
const TRACE_ENDS: &str = "</TASK>";

/// What begins an entry of the list of lost memory, and the line that says how many entries are new.
const LOST: &str = "unreferenced object";
const COUNT_OF_LOST: &str = "new suspected memory leaks";
/// Credentials are shared with whoever the task was made by. A file that is lost has them.
const CREDENTIALS: &str = "prepare_creds+";

/// The task of a report of an oops.
pub(super) fn task(report: &[&str]) -> Option<u32> {
    report.iter().find_map(|line| number_behind(line, " PID: "))
}

/// The lines about these tasks, which were killed.
pub(super) fn consequences(lines: &[&str], tasks: &[u32]) -> Vec<RangeInclusive<usize>> {
    let mut found = Vec::new();
    if tasks.is_empty() {
        return found;
    }
    let is_dead = |line: &str| number_behind(line, "pid").is_some_and(|pid| tasks.contains(&pid));
    for (at, line) in lines.iter().enumerate() {
        let rest = lines.get(at + 1..).unwrap_or_default();
        if line.contains(SLEEPS) {
            let Some(length) = rest.iter().position(|line| line.contains(TRACE_ENDS)) else {
                continue;
            };
            let report = &rest[..length];
            let is_end = report.iter().any(|line| line.contains(END_OF_TASK));
            if is_end && report.iter().any(|line| is_dead(line)) {
                found.push(at..=at + 1 + length);
            }
        } else if line.contains(COUNT_OF_LOST) {
            // The list behind it is judged, entry by entry.
            found.push(at..=at);
        } else if line.starts_with(LOST) {
            let length = rest.iter().position(|line| !line.starts_with(' ')).unwrap_or(rest.len());
            let entry = &rest[..length];
            if entry.first().is_some_and(|line| is_dead(line))
                || entry.iter().any(|line| line.contains(CREDENTIALS))
            {
                found.push(at..=at + length);
            }
        }
    }
    found
}

/// The number that follows a word, behind a colon, a space or both.
fn number_behind(line: &str, word: &str) -> Option<u32> {
    let (_, rest) = line.split_once(word)?;
    let rest = rest.trim_start_matches([':', ' ']);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::scan;

    /// As the kernel reports it, of the task 64.
    const OOPS: &str = "\
[ 1.0] Oops: general protection fault, probably for non-canonical address 0xdffffc0000000001: 0000 [#1]
[ 1.0] CPU: 0 UID: 0 PID: 64 Comm: dd Tainted: G           O        7.2.12-atom-debug #1 PREEMPT
[ 1.0] RIP: 0010:atom_payload_oops+0x2f/0x80 [payload_test_fault]
[ 1.0] Call Trace:
[ 1.0]  </TASK>
[ 1.0] ---[ end trace 0000000000000000 ]---
";

    fn sleeps(pid: u32, function: &str) -> String {
        format!(
            "[ 2.0] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:623\n\
             [ 2.0] in_atomic(): 0, irqs_disabled(): 0, non_block: 0, pid: {pid}, name: dd\n\
             [ 2.0] RCU nest depth: 1, expected: 0\n\
             [ 2.0] Call Trace:\n\
             [ 2.0]  <TASK>\n\
             [ 2.0]  mutex_lock_nested+0x1b/0x20\n\
             [ 2.0]  do_exit+0x2b2/0x1d30\n\
             [ 2.0]  {function}+0xe5/0x2a0\n\
             [ 2.0]  </TASK>\n"
        )
    }

    fn lost(pid: u32, function: &str) -> String {
        format!(
            "unreferenced object 0xffff888006cb3880 (size 344):\n  \
               comm \"init\", pid {pid}, jiffies 4294895441\n  \
               backtrace (crc f51ebdb7):\n    \
                 kmem_cache_alloc_noprof+0x280/0x460\n    \
                 {function}+0x41/0x150\n"
        )
    }

    fn findings(rest: &str) -> usize {
        let count =
            "[ 9.0] kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)\n";
        scan(&[OOPS, count, rest].concat(), &["oops in atom_payload_oops"]).len()
    }

    #[test]
    fn the_end_of_a_killed_task_may_sleep_and_nobody_else() {
        assert_eq!(findings(&sleeps(64, "make_task_dead")), 0);
        assert_ne!(findings(&sleeps(64, "atom_dispatch")), 0);
        assert_ne!(findings(&sleeps(65, "make_task_dead")), 0);
        assert_ne!(scan(&sleeps(64, "make_task_dead"), &["oops in atom_payload_oops"]).len(), 1);
    }

    #[test]
    fn what_a_killed_task_had_is_lost_and_what_others_have_is_not() {
        assert_eq!(findings(&lost(64, "alloc_empty_file")), 0);
        assert_eq!(findings(&lost(55, "prepare_creds")), 0);
        assert_eq!(findings(&lost(55, "alloc_empty_file")), 1);
        let both = [lost(64, "alloc_empty_file"), lost(640, "alloc_empty_file")].concat();
        assert_eq!(findings(&both), 1);
    }

    #[test]
    fn memory_that_is_lost_without_an_oops_is_found() {
        let list = lost(64, "prepare_creds");
        assert_eq!(scan(&list, &["I/O error"]).len(), 1);
        // An oops that nobody has expected excuses nothing.
        assert!(scan(&[OOPS, &list].concat(), &["I/O error"]).len() > 1);
    }
}
