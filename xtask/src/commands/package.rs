// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask package`: packages for nodes.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::package::signing::Signing;
use crate::package::{self, Format, Made, Request};
use crate::places;
use crate::sysroot::{Sysroot, Target};

/// The name and version of the document that `--json` prints.
const SCHEMA: &str = "atom.packages/1";

/// Makes packages for nodes: Atom, payloads, and the tools.
#[derive(clap::Args)]
pub struct Args {
    /// The format.
    #[arg(value_enum)]
    format: Format,
    /// A version of the payload; all releases if not given. Can be given several times.
    #[arg(long = "payload", value_name = "VERSION")]
    payloads: Vec<String>,
    /// The folder for the packages; target/packages if not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Sign the modules with this private key. Its passphrase is read from KBUILD_SIGN_PIN.
    #[arg(long, value_name = "KEY", requires = "sign_cert")]
    sign_key: Option<PathBuf>,
    /// The certificate of the key, which the nodes' kernels trust.
    #[arg(long, value_name = "CERT", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
    /// The number of these packages among those of the same versions.
    #[arg(long, value_name = "N", default_value = "1")]
    version_release: String,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, target: &Target) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| places::target().join("packages"));
    let request = Request {
        format: args.format,
        payloads: args.payloads.clone(),
        out: std::path::absolute(&out)
            .with_context(|| format!("{} names no folder", out.display()))?,
        signing: args
            .sign_key
            .clone()
            .zip(args.sign_cert.clone())
            .map(|(key, certificate)| Signing { key, certificate }),
        release: args.version_release.clone(),
    };
    package::check(&request)?;
    let sysroot = Sysroot::open(target)?;
    let made = package::make(&sysroot, &request)?;
    if args.json {
        let document = serde_json::json!({
            "schema": SCHEMA,
            "kernel": sysroot.kernel().release,
            "signed": request.signing.is_some(),
            "packages": made,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print!("{}", table(&made));
    }
    Ok(())
}

/// The packages for people: one line for each, and what it offers and needs below it.
fn table(made: &[Made]) -> String {
    let mut text = String::new();
    for one in made {
        let kib = one.bytes.div_ceil(1024);
        text.push_str(&format!("{}  {kib} KiB\n", one.file.display()));
        text.push_str(&format!("  provides  {}\n", one.provides.join(", ")));
        text.push_str(&format!("  requires  {}\n", one.requires.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_shown_with_its_size_and_its_relations() {
        let made = Made {
            name: "kmod-atom".to_owned(),
            version: "1.2.0-1".to_owned(),
            file: PathBuf::from("/out/kmod-atom.rpm"),
            bytes: 1025,
            provides: vec!["atom-abi(v1) = 1.2".to_owned()],
            requires: vec!["kmod".to_owned(), "kernel-uname-r = 7".to_owned()],
        };
        assert_eq!(
            table(&[made]),
            "/out/kmod-atom.rpm  2 KiB\n  provides  atom-abi(v1) = 1.2\n  requires  kmod, kernel-uname-r = 7\n"
        );
    }
}
