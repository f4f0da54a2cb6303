// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask upgrade`: a live upgrade, from nothing to the report.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use atom_tests::demo::Document;
use atom_tests::kernel_log;
use atomctl::text::{self, Paint};

use crate::command_line::CommandLine;
use crate::problem::{failed, refused};
use crate::sysroot::{Sysroot, Target};
use crate::vm::link::Stream;
use crate::vm::{Vm, VmConfig};
use crate::{host, kbuild, modules, product, programs};

/// How long the whole run may take in the guest.
const LIMIT: Duration = Duration::from_secs(300);
/// Programs that the workload needs on a machine.
const NEEDED: &[(&str, &str)] = &[("fio", "fio"), ("mkfs.ext4", "e2fsprogs"), ("mount", "mount")];

/// Upgrades a payload warm, cold and warm again under a verified workload, and shows what happened.
#[derive(clap::Args)]
pub struct Args {
    /// Where to do it.
    #[arg(long, value_enum, default_value = "vm")]
    target: Where,
    /// Print one JSON document and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

/// Where the run takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// In a guest of its own, which is turned off afterwards.
    Vm,
    /// On this machine.
    Local,
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    let sysroot = Sysroot::open(target)?;
    let text = match args.target {
        Where::Vm => in_guest(&sysroot)?,
        Where::Local => here(&sysroot)?,
    };
    let document: Document =
        serde_json::from_str(&text).with_context(|| format!("this is no report: {text}"))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        show(&document);
    }
    Ok(ExitCode::SUCCESS)
}

fn in_guest(sysroot: &Sysroot) -> Result<String> {
    let initramfs = product::guest(sysroot)?;
    eprintln!("booting a guest with the kernel {}", sysroot.kernel().release);
    let vm = Vm::boot(sysroot, &initramfs, &VmConfig::named("upgrade"))?;
    let mut document = String::new();
    let argv = ["/init", "upgrade", "/lib/atom", "/bin/atomctl"];
    let code = vm.exec(&argv, LIMIT, |stream, line| match stream {
        Stream::Stdout => document = line.to_owned(),
        Stream::Stderr => progress(line),
    })?;
    let log = vm.kernel_log()?;
    let path = vm.dir().join("kernel.log");
    std::fs::write(&path, &log)?;
    let findings = kernel_log::scan(&log, &[] as &[&str]);
    vm.poweroff()?;
    if let Some(finding) = findings.first() {
        return Err(failed(
            "the guest's kernel complained",
            format!("{} ({})", finding.text, finding.meaning),
            format!("read line {} of {}", finding.line, path.display()),
        ));
    }
    succeeded(code)?;
    Ok(document)
}

fn here(sysroot: &Sysroot) -> Result<String> {
    let built_for = &sysroot.kernel().release;
    let running = CommandLine::new("uname").arg("-r").read()?;
    if &running != built_for {
        return Err(refused(
            "this machine cannot load the modules",
            format!("it runs kernel {running}, and they are built for {built_for}"),
            "boot that kernel, choose another with --kernel, or leave out --target local to use a guest",
        ));
    }
    for (program, package) in NEEDED {
        if host::find(program).is_none() {
            return Err(refused(
                format!("there is no {program} on this machine"),
                "the workload needs it",
                format!("run `apt-get install {package}`"),
            ));
        }
    }
    if Path::new("/sys/module/atom").exists() {
        return Err(refused(
            "Atom is loaded on this machine already",
            "the run loads and unloads it, and would disturb what uses it",
            "upgrade what is there with `atomctl upgrade`, or unload it first",
        ));
    }
    product::build(sysroot)?;
    let folder = kbuild::loadable(sysroot, modules::ATOM);
    let folder = folder.parent().context("the modules lie in a folder")?;
    let command = CommandLine::new(programs::path("atom-guest"))
        .arg("upgrade")
        .arg(folder)
        .arg(programs::path("atomctl"));
    let output = command
        .command()
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("this command could not be started: {command}"))?;
    succeeded(output.status.code().unwrap_or(-1))?;
    Ok(String::from_utf8(output.stdout)?)
}

fn succeeded(code: i32) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(failed(
        "the run ended before its end",
        format!("it exited with {code}; what it said last stands above"),
        "read target/vm/upgrade/kernel.log, and try `cargo xtask test`",
    ))
}

fn progress(line: &str) {
    eprintln!("  {}", line.strip_prefix("step: ").unwrap_or(line));
}

fn show(document: &Document) {
    let paint = Paint::for_stream(&std::io::stdout());
    println!("\nkernel {}", document.kernel);
    for report in &document.upgrades {
        print!("\n{}", text::upgrade(report, paint));
    }
    let seen = &document.workload;
    println!(
        "\n{} verified requests and {} files on devices whose module was replaced {} times: {} errors, {} wrong bytes",
        seen.verified_ios,
        seen.files_checked,
        document.upgrades.len(),
        seen.errors,
        seen.corruptions
    );
}
