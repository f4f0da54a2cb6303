// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which process, user and start of the machine this is.

use std::fs;

use super::Process;

/// The kernel's name for the time since the machine was started.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Who has called this program, also when that was by way of `sudo`.
pub(super) fn user() -> String {
    let user = nix::unistd::getuid();
    match std::env::var("SUDO_USER") {
        Ok(name) if user.is_root() && !name.is_empty() => name,
        _ if user.is_root() => "root".to_owned(),
        _ => format!("uid {user}"),
    }
}

impl Process {
    /// This one.
    pub(super) fn this() -> Self {
        let id = std::process::id();
        Self { id, started: started(id).unwrap_or_default() }
    }

    /// True while it is there. Only for processes since the machine was started.
    pub fn is_alive(&self) -> bool {
        started(self.id).is_some_and(|started| started == self.started)
    }
}

/// When a process was started; none when there is none of this number, or one that has ended and was not waited for.
fn started(id: u32) -> Option<u64> {
    /// Fields of `/proc/PID/stat` behind the name, which ends with the last parenthesis.
    const STATE: usize = 0;
    const START: usize = 19;
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.get(STATE), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(START)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_of_its_number_from_another_time_is_not() {
        let this = Process::this();
        assert!(this.is_alive());
        assert!(!Process { started: this.started.wrapping_add(1), ..this }.is_alive());
        assert!(!Process { id: u32::MAX, started: 1 }.is_alive());
    }

    #[test]
    fn a_process_that_has_ended_is_not_alive_before_somebody_waits_for_it() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let started = started(child.id()).unwrap();
        let process = Process { id: child.id(), started };
        assert!(process.is_alive());
        drop(child.stdin.take());
        while process.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
