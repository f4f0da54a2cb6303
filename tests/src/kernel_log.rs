// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a kernel log must not say.
//!
//! A scenario that ends well while the kernel complains has not ended well. The rules name what each text means, so
//! that a finding can be understood without knowing the kernel's wording.

use serde::{Deserialize, Serialize};

mod dead;

/// A line of a kernel log that must not be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The line's number, from 1.
    pub line: usize,
    /// What it means.
    pub meaning: String,
    /// The line itself.
    pub text: String,
}

/// Texts and what they mean. The first that a line contains counts.
const RULES: &[(&str, &str)] = &[
    ("Kernel panic", "the kernel panicked"),
    ("KASAN:", "memory was used that is not the user's"),
    ("UBSAN:", "undefined behaviour"),
    ("KCSAN:", "a data race"),
    ("KMSAN:", "uninitialised memory was used"),
    ("possible circular locking", "locks are taken in different orders"),
    ("possible recursive locking", "a lock is taken by its holder"),
    ("possible irq lock inversion", "a lock is unsafe with interrupts"),
    ("inconsistent lock state", "a lock is unsafe with interrupts"),
    ("bad unlock balance", "a lock was released that was not held"),
    ("held lock freed", "memory with a held lock was freed"),
    ("lock held when returning to user space", "a lock was left held"),
    ("suspicious RCU usage", "data was read without its RCU protection"),
    ("INVALID RCU usage", "data was read without its RCU protection"),
    ("scheduling while atomic", "a task slept where it must not"),
    ("sleeping function called", "a task slept where it must not"),
    ("Voluntary context switch within RCU", "a task slept where it must not"),
    ("blocked for more than", "a task hung"),
    ("soft lockup", "a processor was kept busy"),
    ("hard LOCKUP", "a processor was kept busy with interrupts off"),
    ("workqueue lockup", "a workqueue stopped"),
    ("detected stall", "RCU stalled"),
    ("self-detected stall", "RCU stalled"),
    ("detected expedited stalls", "RCU stalled"),
    ("starved for", "RCU stalled"),
    ("ODEBUG: Out of memory", "a detector gave up"),
    ("ODEBUG:", "a kernel object was used out of order"),
    ("Kernel memory leak detector disabled", "a detector gave up"),
    ("turning off the locking correctness validator", "a detector gave up"),
    ("trying to register non-static key", "a lock was not initialised, and a detector gave up"),
    ("unreferenced object", "memory was leaked"),
    ("new suspected memory leaks", "memory was leaked"),
    ("refcount_t:", "a reference count went wrong"),
    ("list_add corruption", "a list was corrupted"),
    ("list_del corruption", "a list was corrupted"),
    ("slab-use-after-free", "freed memory was used"),
    ("Slab corruption", "freed memory was written"),
    ("Poison overwritten", "freed memory was written"),
    ("Redzone overwritten", "memory was written beyond its end"),
    ("Objects remaining", "a cache was destroyed while in use"),
    ("Bad page state", "a page was freed while in use"),
    ("general protection fault", "a bad address was used"),
    ("unable to handle page fault", "a bad address was used"),
    ("NULL pointer dereference", "a null pointer was followed"),
    ("Oops:", "the kernel stumbled"),
    ("invalid opcode:", "the kernel reached a trap"),
    ("divide error:", "a division by zero"),
    ("stack guard page was hit", "a kernel stack overflowed"),
    ("BUG:", "the kernel found a bug"),
    ("kernel BUG at", "the kernel found a bug"),
    ("WARNING:", "the kernel warned"),
    ("Call Trace:", "the kernel showed where it stumbled"),
    ("rust_kernel: panicked", "Rust code panicked"),
    ("panicked at", "Rust code panicked"),
    ("Buffer I/O error", "an I/O failed"),
    ("I/O error", "an I/O failed"),
    ("critical medium error", "an I/O failed"),
    ("critical target error", "an I/O failed"),
    ("timeout error, dev", "an I/O timed out"),
    ("lost async page write", "data was lost"),
    ("lost page write", "data was lost"),
    ("EXT4-fs error", "a file system found damage"),
    ("EXT4-fs warning", "a file system found something odd"),
    ("Aborting journal", "a file system gave up"),
    ("Remounting filesystem read-only", "a file system gave up"),
    ("Metadata corruption detected", "a file system found damage"),
    ("Corruption of in-memory data", "a file system found damage"),
    ("Filesystem has been shut down", "a file system gave up"),
    ("Unknown symbol", "a module does not fit the kernel"),
    ("disagrees about version of symbol", "a module does not fit the kernel"),
    ("version magic", "a module does not fit the kernel"),
    ("invalid relocation target", "a module does not fit the kernel"),
    ("Out of memory:", "memory ran out"),
    ("page allocation failure", "memory ran out"),
    ("sysfs: cannot create duplicate filename", "a name was registered twice"),
    ("tried to init an initialized object", "an object was registered twice"),
    ("is corrupted", "a kernel structure was corrupted"),
];

/// Texts of ordinary boots that a rule would match. Each says something of the machine, not of our code.
const ORDINARY: &[&str] =
    &["Spectre V2 : WARNING:", "RETBleed: WARNING:", "Unprivileged eBPF is enabled"];

/// What an allowed text begins with that stands for one whole oops; behind it comes a part of the name of the function
/// in which it must happen.
pub const OOPS_IN: &str = "oops in ";

/// What an allowed text begins with that stands for reports of memory that was not to be had, however many; behind it comes
/// the name of a function that must have asked for it.
pub const SHORTAGE_IN: &str = "no memory in ";

/// What an allowed text begins with that stands for a kernel that is broken on purpose; behind it come parts of a line that must
/// be there, with ` .. ` between them. Nothing else is judged then.
pub const BROKEN: &str = "broken: ";

/// Finds every line that must not be there. A line that contains one of the `allowed` texts is passed over: scenarios
/// list there what they provoke on purpose.
///
/// An allowed text such as `oops in in_adopt` is met by exactly one oops of the kernel in a function of that name, with what the
/// kernel says of the task that it has killed by it. A second one, one elsewhere, or none at all is a finding.
pub fn scan<S: AsRef<str>>(log: &str, allowed: &[S]) -> Vec<Finding> {
    let lines: Vec<&str> = log.lines().collect();
    let mut broken =
        allowed.iter().filter_map(|text| text.as_ref().strip_prefix(BROKEN)).peekable();
    if broken.peek().is_some() {
        return broken.filter_map(|text| silence(&lines, text)).collect();
    }
    let mut findings = Vec::new();
    let mut passed_over = Vec::new();
    let mut killed = Vec::new();
    let mut oopses = oopses(&lines);
    for function in allowed.iter().filter_map(|text| text.as_ref().strip_prefix(OOPS_IN)) {
        match oopses.iter().position(|oops| oops.happened_in(function)) {
            Some(at) => {
                let oops = oopses.remove(at);
                killed.extend(oops.task);
                passed_over.push(oops.lines);
            }
            None => findings.push(Finding {
                line: lines.len(),
                meaning: "an oops was expected and did not happen".to_owned(),
                text: format!("{OOPS_IN}{function}"),
            }),
        }
    }
    passed_over.extend(dead::consequences(&lines, &killed));
    let short: Vec<&str> =
        allowed.iter().filter_map(|text| text.as_ref().strip_prefix(SHORTAGE_IN)).collect();
    passed_over.extend(shortages(&lines, &short));
    let is_allowed = |index: usize, line: &str| {
        passed_over.iter().any(|range| range.contains(&index))
            || allowed.iter().any(|text| line.contains(text.as_ref()))
            || ORDINARY.iter().any(|text| line.contains(text))
    };
    let lines = lines.iter().enumerate().filter(|(index, line)| !is_allowed(*index, line));
    findings.extend(lines.filter_map(|(index, line)| {
        let (_, meaning) = RULES.iter().find(|(text, _)| line.contains(text))?;
        let text = (*line).to_owned();
        Some(Finding { line: index + 1, meaning: (*meaning).to_owned(), text })
    }));
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// The finding that a text is not there which a detector must have said.
fn silence(lines: &[&str], text: &str) -> Option<Finding> {
    let said = !text.is_empty() && lines.iter().any(|line| has_parts(line, text));
    (!said).then(|| Finding {
        line: lines.len(),
        meaning: "the kernel was broken on purpose, and a detector was silent".to_owned(),
        text: format!("{BROKEN}{text}"),
    })
}

fn has_parts(line: &str, text: &str) -> bool {
    let mut parts = text.split(" .. ");
    parts.try_fold(line, |rest, part| rest.split_once(part).map(|(_, rest)| rest)).is_some()
}

/// One report of an oops, from its first line to its end mark.
struct Oops {
    lines: std::ops::RangeInclusive<usize>,
    /// The symbol of the instruction that failed.
    symbol: String,
    /// Whom the kernel has killed.
    task: Option<u32>,
}

impl Oops {
    fn happened_in(&self, function: &str) -> bool {
        !function.is_empty() && self.symbol.contains(function)
    }
}

/// What begins the report of a bad address, which is how an oops is provoked.
const OOPS_BEGINS: &[&str] = &[
    "BUG: kernel NULL pointer dereference",
    "BUG: unable to handle page fault",
    "Oops: general protection fault",
];
const OOPS_ENDS: &str = "---[ end trace";

fn oopses(lines: &[&str]) -> Vec<Oops> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = first(lines, at, OOPS_BEGINS) {
        let Some(end) = first(lines, begin, &[OOPS_ENDS]) else { break };
        let report = &lines[begin..=end];
        // The second `RIP:`, if there is one, is that of the system call.
        let symbol = report.iter().find_map(|line| line.split("RIP: 0010:").nth(1));
        let symbol = symbol.and_then(|text| text.split('+').next()).unwrap_or_default();
        let task = dead::task(report);
        found.push(Oops { lines: begin..=end, symbol: symbol.to_owned(), task });
        at = end + 1;
    }
    found
}

const SHORTAGE_BEGINS: &[&str] = &["page allocation failure"];
const SHORTAGE_ENDS: &[&str] = &["Mem-Info:"];

/// The reports of memory that was not to be had for one of the functions, each up to where the kernel begins to list what
/// memory there is.
fn shortages(lines: &[&str], functions: &[&str]) -> Vec<std::ops::RangeInclusive<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = first(lines, at, SHORTAGE_BEGINS) {
        at = begin + 1;
        let Some(end) = first(lines, at, SHORTAGE_ENDS) else { break };
        if first(lines, at, SHORTAGE_BEGINS).is_some_and(|next| next < end) {
            // Two that are mixed up are looked at by a person.
            continue;
        }
        let asked = |line: &&str| {
            // A function that may have been called from there has a question mark.
            let name = line.trim_end().rsplit(' ').next().unwrap_or_default();
            let name = name.split_once("+0x").map_or("", |(name, _)| name);
            !name.is_empty() && !line.contains("? ") && functions.contains(&name)
        };
        if lines[begin..end].iter().any(asked) {
            found.push(begin..=end);
        }
    }
    found
}

/// The first line from `at` on that contains one of the texts.
fn first(lines: &[&str], at: usize, texts: &[&str]) -> Option<usize> {
    let found = lines[at..].iter().position(|line| texts.iter().any(|text| line.contains(text)));
    found.map(|offset| at + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &[&str] = &[];

    fn found(line: &str) -> bool {
        !scan(line, NONE).is_empty()
    }

    #[test]
    fn ordinary_boot_lines_pass() {
        let log = "\
[    0.000000] Linux version 7.2.12+deb13-cloud-amd64 (gcc-14) #1 SMP PREEMPT_DYNAMIC
[    0.000000] Command line: console=ttyS0 panic=-1 unknown_nmi_panic
[    0.021000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on
[    0.100000] rcu: Hierarchical RCU implementation.
[    0.100000] rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.
[    0.400000] ACPI: Core revision 20260101
[    1.000000] Run /init as init process
[    2.000000] EXT4-fs (vda): mounted filesystem with ordered data mode.
[    2.100000] XFS (vdb): Ending clean mount";
        assert_eq!(scan(log, NONE), []);
    }

    #[test]
    fn the_taint_of_an_unsigned_module_passes() {
        let log = "atom: loading out-of-tree module taints kernel.\n\
                   atom: module verification failed: signature and/or required key missing - tainting kernel";
        assert_eq!(scan(log, NONE), []);
    }

    #[test]
    fn every_kind_of_complaint_is_found() {
        for line in [
            "WARNING: block/blk-mq.c:100 at blk_mq_start_request+0x1, CPU#1: fio/100",
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "Oops: 0000 [#1] SMP",
            "Call Trace:",
            "general protection fault, probably for non-canonical address",
            "INFO: task fio:100 blocked for more than 120 seconds.",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "WARNING: possible circular locking dependency detected",
            "BUG: KASAN: slab-use-after-free in f+0x1",
            "UBSAN: array-index-out-of-bounds in a.c:1",
            "BUG: KCSAN: data-race in f / g",
            "ODEBUG: free active (active state 0) object: 1 object type: timer_list hint: f+0x0",
            "kmemleak: Kernel memory leak detector disabled",
            "turning off the locking correctness validator.",
            "INFO: trying to register non-static key.",
            "unreferenced object 0xffff888000000000 (size 64):",
            "refcount_t: underflow; use-after-free.",
            "BUG: scheduling while atomic: fio/1/0x00000002",
            "BUG: sleeping function called from invalid context at a.c:1",
            "I/O error, dev atom0, sector 0 op 0x0:(READ) flags 0x0",
            "Buffer I/O error on dev atom0, logical block 0",
            "EXT4-fs error (device atom0): ext4_lookup:1: deleted inode referenced",
            "XFS (atom0): Metadata corruption detected at f+0x1",
            "list_del corruption. prev->next should be a, but was b.",
            "payload_1_0_0: Unknown symbol atom_register (err -2)",
            "Kernel panic - not syncing: Attempted to kill init!",
            "rust_kernel: panicked at atom_main.rs:1:1:",
        ] {
            assert!(found(line), "{line}");
        }
    }

    #[test]
    fn a_finding_names_its_line_and_what_it_means() {
        let findings = scan("fine\n[ 1.0] BUG: soft lockup - CPU#0 stuck for 22s!\n", NONE);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
        assert_eq!(findings[0].meaning, "a processor was kept busy");
    }

    #[test]
    fn what_a_scenario_provokes_on_purpose_is_allowed_and_nothing_else() {
        let log = "I/O error, dev atom0, sector 8\nI/O error, dev vda, sector 8";
        let findings = scan(log, &["I/O error, dev atom0"]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
    }

    /// As the kernel reports it, with the function of the failing instruction in `RIP`.
    fn oops(symbol: &str) -> String {
        format!(
            "[ 1.0] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
             [ 1.0] #PF: supervisor read access in kernel mode\n\
             [ 1.0] Oops: Oops: 0000 [#1] SMP NOPTI\n\
             [ 1.0] RIP: 0010:{symbol}+0x11/0x20 [payload_test_fault]\n\
             [ 1.0] Call Trace:\n\
             [ 1.0]  <TASK>\n\
             [ 1.0] RIP: 0033:0x7f63327bf4f9\n\
             [ 1.0] ---[ end trace 0000000000000000 ]---\n\
             [ 1.0] RIP: 0010:{symbol}+0x11/0x20 [payload_test_fault]\n"
        )
    }

    #[test]
    fn one_oops_in_the_function_that_is_named_is_allowed() {
        let log = oops("_RNvNtCs123_12payload_main5fault8in_adopt");
        assert_eq!(scan(&log, &["oops in in_adopt"]), []);
        assert!(!scan(&log, NONE).is_empty());
    }

    #[test]
    fn a_detector_that_is_silent_about_what_is_broken_is_found() {
        let log = "BUG: KASAN: slab-use-after-free in broken_init+0x1\nCall Trace:\n";
        assert_eq!(scan(log, &["broken: KASAN: slab-use-after-free in broken"]), []);
        let findings = scan(log, &["broken: BUG: KCSAN: data-race in broken"]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].meaning.contains("silent"));
        assert_eq!(scan(log, &["broken: "]).len(), 1);
        assert_eq!(scan(log, &["broken: KASAN: .. in broken_init", "broken: Call Trace"]), []);
        assert_eq!(scan(log, &["broken: in broken_init .. KASAN"]).len(), 1);
    }

    #[test]
    fn a_second_oops_one_elsewhere_or_none_at_all_is_found() {
        let twice = [oops("in_adopt"), oops("in_adopt")].concat();
        let findings = scan(&twice, &["oops in in_adopt"]);
        assert_eq!(findings.first().map(|finding| finding.line), Some(10));
        let elsewhere = scan(&oops("blk_mq_end_request"), &["oops in in_adopt"]);
        assert!(elsewhere.iter().any(|finding| finding.meaning == "a null pointer was followed"));
        assert_eq!(scan("fine\n", &["oops in in_adopt"]).len(), 1);
        assert!(!scan(&oops("in_adopt"), &["oops in "]).is_empty());
    }

    /// As the kernel reports it.
    fn shortage(function: &str) -> String {
        format!(
            "[ 1.0] init: page allocation failure: order:0, mode:0xc0de0(GFP_KERNEL|__GFP_HIGH)\n\
             [ 1.0] Call Trace:\n\
             [ 1.0]  <TASK>\n\
             [ 1.0]  warn_alloc+0x131/0x1d0\n\
             [ 1.0]  ? maybe_called+0x1/0x2\n\
             [ 1.0]  {function}+0x237/0x440\n\
             [ 1.0]  </TASK>\n\
             [ 1.0] Mem-Info:\n"
        )
    }

    #[test]
    fn a_shortage_is_allowed_to_whom_it_is_and_to_nobody_else() {
        let log = shortage("folio_alloc_swap");
        let allowed = &["no memory in folio_alloc_swap"];
        assert_eq!(scan(&log, allowed), []);
        assert_eq!(scan(&[log.as_str(), &log].concat(), allowed), []);
        assert_eq!(scan(&log, NONE).len(), 2);
        assert_eq!(scan(&shortage("blk_mq_alloc_request"), allowed).len(), 2);
        assert_eq!(scan(&log, &["no memory in maybe_called"]).len(), 2);
        assert_eq!(scan(&log, &["no memory in "]).len(), 2);
        let after = log.clone() + "[ 2.0] Out of memory: Killed process 1\n";
        assert_eq!(scan(&after, allowed).len(), 1);
        let mixed = log.replace("Mem-Info:", "init: page allocation failure: order:0");
        assert!(!scan(&mixed, allowed).is_empty());
    }

    #[test]
    fn what_the_kernel_complains_about_beside_an_allowed_oops_is_found() {
        let log = oops("in_adopt") + "[ 2.0] BUG: scheduling while atomic: fio/1/0x00000002\n";
        let findings = scan(&log, &["oops in in_adopt"]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 10);
    }
}
