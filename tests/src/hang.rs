// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a guest does from which no answer comes: who waits for what, and whether time goes on for each processor.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// How many functions of a stack are shown, from the innermost on.
const FRAMES: usize = 12;

/// A timer may be so late, in ns, before its processor is called one without interrupts. Emulated ones on a busy host are late by
/// tens of milliseconds.
const LATE: i64 = 5_000_000_000;

/// A text of a line for each finding. Reads `/proc` only, so it takes no lock that anybody may hang on.
pub fn describe() -> String {
    let mut text = String::new();
    match fs::read_to_string("/proc/timer_list") {
        Ok(list) => overdue(&list).iter().for_each(|line| add(&mut text, line)),
        Err(error) => add(&mut text, &format!("/proc/timer_list: {error}")),
    }
    let mut tasks: Vec<_> = numbers("/proc").into_iter().flat_map(Task::all_of).collect();
    tasks.retain(Task::matters);
    tasks.iter().for_each(|task| add(&mut text, &task.line()));
    text
}

fn add(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

/// The processors whose first timer is overdue for long, by `kernel/time/timer_list.c`.
fn overdue(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut processor = "";
    let mut worst = 0;
    for line in list.lines().chain(["cpu: the end"]) {
        if let Some(next) = line.strip_prefix("cpu: ") {
            if worst <= -LATE {
                let seconds = -worst / 1_000_000_000;
                found.push(format!("processor {processor} has a timer that is {seconds} s late: it gets no interrupts of its clock"));
            }
            (processor, worst) = (next, 0);
        } else if let Some((_, rest)) = line.split_once(" nsecs [in ") {
            let latest = rest.split(' ').nth(2).and_then(|number| number.parse().ok());
            worst = latest.map_or(worst, |latest: i64| latest.min(worst));
        }
    }
    found
}

/// One thread, as `/proc` shows it.
struct Task {
    number: u32,
    state: char,
    name: String,
    is_kernel: bool,
    stack: Vec<String>,
}

impl Task {
    fn all_of(process: u32) -> Vec<Self> {
        let of = |number| {
            let folder = format!("/proc/{process}/task/{number}");
            let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
            let stack = fs::read_to_string(format!("{folder}/stack")).unwrap_or_default();
            Self::read(number, &stat, &stack)
        };
        numbers(&format!("/proc/{process}/task")).into_iter().filter_map(of).collect()
    }

    /// From its `stat` (`proc_pid_stat(5)`) and its `stack`.
    fn read(number: u32, stat: &str, stack: &str) -> Option<Self> {
        /// `PF_KTHREAD` of `include/linux/sched.h`.
        const KTHREAD: u64 = 0x0020_0000;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let flags: u64 = fields.get(6)?.parse().ok()?;
        let frame = |line: &str| {
            let frame = line.strip_prefix("[<0>] ").unwrap_or(line);
            frame.split('/').next().unwrap_or(frame).to_owned()
        };
        Some(Self {
            number,
            state: fields.first()?.chars().next()?,
            name: name.to_owned(),
            is_kernel: flags & KTHREAD != 0,
            // All calls come from there.
            stack: stack
                .lines()
                .map(frame)
                .take_while(|frame| !frame.starts_with("do_syscall_64"))
                .take(FRAMES)
                .collect(),
        })
    }

    /// Threads of the kernel that wait for work do not.
    fn matters(&self) -> bool {
        !self.is_kernel || matches!(self.state, 'D' | 'R')
    }

    fn line(&self) -> String {
        let stack = match self.stack.as_slice() {
            [] => "no stack".to_owned(),
            stack => stack.join(" < "),
        };
        format!("{} {} {}: {stack}", self.number, self.name, self.state)
    }
}

/// The entries of a folder that are numbers, in order.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
    let mut all: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
now at 32434137052 nsecs

cpu: 0
 #0: <00000000b14a5ee3>, tick_nohz_handler, S:01
 # expires at 32436000000-32436000000 nsecs [in 1862948 to 1862948 nsecs]
 #1: <00000000b14a5ee4>, hrtimer_wakeup, S:01
 # expires at 32430000000-32436000000 nsecs [in -4137052 to 1862948 nsecs]
cpu: 1
 #0: <00000000d1d5c5d5>, watchdog_timer_fn, S:01
 # expires at 2434137052-2434137052 nsecs [in -30000000000 to -30000000000 nsecs]
";

    #[test]
    fn a_processor_without_interrupts_of_its_clock_is_seen_by_a_timer_that_is_late() {
        let found = overdue(LIST);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("processor 1 has a timer that is 30 s late"), "{found:?}");
    }

    #[test]
    fn timers_that_are_late_for_a_moment_are_not_worth_a_word() {
        let busy = LIST.replace("-30000000000", "-900000000");
        assert!(overdue(&busy).is_empty());
    }

    #[test]
    fn a_line_shows_who_waits_in_which_state_for_what() {
        let stat = "17 (kworker/0:1 (x)) D 2 0 0 0 -1 69238880 0 0 0 0";
        let stack =
            "[<0>] ps2_drain+0x1/0x20\n[<0>] atkbd_probe+0x3/0x40\n[<0>] do_syscall_64+0x1/0x2\n";
        let task = Task::read(17, stat, stack).unwrap();
        assert_eq!(task.line(), "17 kworker/0:1 (x) D: ps2_drain+0x1 < atkbd_probe+0x3");
        assert!(task.is_kernel && task.matters());
        let idle = Task::read(17, &stat.replace(" D ", " I "), stack).unwrap();
        assert!(!idle.matters());
        let ours = Task::read(90, "90 (fio) S 1 0 0 0 -1 4194304 0", "").unwrap();
        assert!(!ours.is_kernel && ours.matters());
    }

    #[test]
    fn this_very_thread_is_described() {
        let text = describe();
        let number = std::process::id().to_string();
        assert!(text.lines().any(|line| line.starts_with(&number)), "{text}");
    }
}
