// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A process that is let go on until it has made a certain system call, and no further (`ptrace(2)`). Whoever only looks at what the call has
//! done comes too late as soon as the machine is busy.

use anyhow::{bail, Context as _, Result};
use nix::libc::{c_long, SYS_finit_module, SYS_init_module, ENOSYS};
use nix::sys::ptrace;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

/// The calls that insert a module.
pub const INSERTIONS: [c_long; 2] = [SYS_init_module, SYS_finit_module];

/// A process that stands still where a call returns. It goes on when this is dropped. Only for the thread that has made it.
pub struct Stopped(Pid);

/// Lets a process go on until one of the calls returns to it, and stops it there. Other threads of it go on.
pub fn behind_call(process: Pid, calls: &[c_long]) -> Result<Stopped> {
    ptrace::seize(process, ptrace::Options::PTRACE_O_TRACESYSGOOD)
        .with_context(|| format!("cannot trace {process}"))?;
    let stopped = Stopped(process);
    ptrace::interrupt(process)?;
    loop {
        let signal = match waitpid(process, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(_) => {
                let registers = ptrace::getregs(process)?;
                let call = registers.orig_rax.cast_signed();
                if calls.contains(&call) && returns(registers.rax) {
                    return Ok(stopped);
                }
                None
            }
            // That of a stop by `ptrace` itself is none.
            WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            ended => bail!("{process} has not made the call: {ended:?}"),
        };
        ptrace::syscall(process, signal)?;
    }
}

/// Whether a stop is behind the call: before it the result is that of a call that there is not.
fn returns(result: u64) -> bool {
    result.cast_signed() != -i64::from(ENOSYS)
}

impl Stopped {
    /// Kills it where it stands.
    pub fn kill(self) -> Result<()> {
        kill(self.0, Signal::SIGKILL)?;
        // Its parent learns of it after whoever traces it has.
        while !matches!(waitpid(self.0, Some(WaitPidFlag::__WALL))?, WaitStatus::Signaled(..)) {}
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that is gone needs nothing.
        let _ = ptrace::detach(self.0, None);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use nix::libc::SYS_mkdir;

    use super::*;

    /// A shell that makes one folder and then another one.
    fn folders(name: &str) -> (std::path::PathBuf, std::process::Child) {
        let folder =
            std::env::temp_dir().join(format!("atom-ptraced-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let child = Command::new("sh")
            .args(["-c", "read line; exec mkdir one two"])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        (folder, child)
    }

    #[test]
    fn a_process_stops_behind_its_call_and_dies_there() {
        let (folder, mut child) = folders("dies");
        let process = Pid::from_raw(child.id().cast_signed());
        let input = child.stdin.take();
        let wakes = std::thread::spawn(move || drop(input));
        let stopped = match behind_call(process, &[SYS_mkdir]) {
            Ok(stopped) => stopped,
            // Some containers forbid it.
            Err(error) if format!("{error:#}").contains("EPERM") => return,
            Err(error) => panic!("{error:#}"),
        };
        wakes.join().expect("it ends");
        assert!(folder.join("one").exists() && !folder.join("two").exists());
        stopped.kill().expect("it dies");
        assert!(!folder.join("two").exists());
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }

    #[test]
    fn a_process_that_never_makes_the_call_ends_and_says_so() {
        let (folder, mut child) = folders("ends");
        let process = Pid::from_raw(child.id().cast_signed());
        let input = child.stdin.take();
        let wakes = std::thread::spawn(move || drop(input));
        let Err(error) = behind_call(process, &INSERTIONS) else {
            panic!("mkdir inserts no module")
        };
        wakes.join().expect("it ends");
        let text = format!("{error:#}");
        assert!(text.contains("has not made the call") || text.contains("EPERM"), "{text}");
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
