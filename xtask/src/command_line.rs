// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A command that can be shown before, and after, it is run.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A program with its arguments, environment and folder.
///
/// Every error about a command shows it through this type's `Display`, so that it can be pasted into a shell.
#[derive(Clone, Debug)]
pub struct CommandLine {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl CommandLine {
    /// Starts a command with its program.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { argv: vec![program.as_ref().to_owned()], env: Vec::new(), dir: None }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the command's environment, also one that was set before.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(known, _)| known != name.as_ref());
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the folder in which the command runs.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// The command as something that duct can run.
    pub fn expression(&self) -> duct::Expression {
        let (program, args) = self.argv.split_at(1);
        let mut expression = duct::cmd(&program[0], args);
        for (name, value) in &self.env {
            expression = expression.env(name, value);
        }
        if let Some(dir) = &self.dir {
            expression = expression.dir(dir);
        }
        expression
    }

    /// The command as the standard library's type, for callers that keep the child.
    pub fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(n, v)| (n, v)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Runs the command and returns what it printed; its error output goes where ours goes.
    pub fn read(&self) -> Result<String> {
        self.expression().read().with_context(|| format!("this command failed: {self}"))
    }

    /// Runs the command and tells whether it exited with 0. What it prints goes to our error output: our
    /// standard output may be a document.
    pub fn passes(&self) -> Result<bool> {
        self.succeeds(self.expression().stdout_to_stderr())
    }

    /// Runs the command on our terminal, as what the person came for, and tells whether it exited with 0.
    pub fn passes_on_terminal(&self) -> Result<bool> {
        self.succeeds(self.expression())
    }

    fn succeeds(&self, expression: duct::Expression) -> Result<bool> {
        let output = expression
            .unchecked()
            .run()
            .with_context(|| format!("this command could not be started: {self}"))?;
        Ok(output.status.success())
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dir) = &self.dir {
            write!(f, "cd {} && ", quote(dir.as_os_str()))?;
        }
        for (name, value) in &self.env {
            write!(f, "{}={} ", name.to_string_lossy(), quote(value))?;
        }
        for (index, arg) in self.argv.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", quote(arg))?;
        }
        Ok(())
    }
}

fn quote(arg: &OsStr) -> String {
    let arg = arg.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.into_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_the_value_that_was_set_last() {
        let command = CommandLine::new("sh").args(["-c", "echo $A"]).env("A", "1").env("A", "2");
        assert_eq!(command.read().unwrap(), "2");
    }

    #[test]
    fn whether_a_command_passes_is_its_exit_code() {
        assert!(CommandLine::new("sh").args(["-c", "echo not a document"]).passes().unwrap());
        assert!(!CommandLine::new("sh").args(["-c", "exit 3"]).passes().unwrap());
    }

    #[test]
    fn a_command_is_shown_so_that_a_shell_reads_it_back() {
        let command =
            CommandLine::new("echo").arg("it's").arg("").env("A", "b c").dir(Path::new("/tmp"));
        assert_eq!(command.to_string(), r"cd /tmp && A='b c' echo 'it'\''s' ''");
    }
}
