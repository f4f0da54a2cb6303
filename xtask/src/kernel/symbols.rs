// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Proof that the metadata we made is the stock kernel's: every Rust symbol that it offers to modules is one that the
//! stock kernel exports.

use std::collections::HashSet;

use anyhow::{Context, Result};

use crate::problem::failed;
use crate::sysroot::Sysroot;

/// The crates whose exports are compared.
const CRATES: &[&str] = &["kernel", "core", "bindings", "helpers"];

/// Compares the symbols and prints how many there are.
pub fn check(sysroot: &Sysroot) -> Result<()> {
    let read = |file: &str| {
        let path = sysroot.outside(&format!("{}/{file}", sysroot.kernel_build()));
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let stock = read("Module.symvers")?;
    let mut ours = Vec::new();
    for name in CRATES {
        let text = read(&format!("rust/exports_{name}_generated.h"))?;
        ours.extend(exported(&text).map(str::to_owned));
    }
    let missing = missing(&ours, &stock);
    if ours.is_empty() {
        return Err(failed(
            "the prepared kernel folder exports no Rust symbols",
            "the headers that list them are empty",
            "delete the sysroot's folder and run `cargo xtask setup` again",
        ));
    }
    if let Some(example) = missing.first() {
        return Err(failed(
            format!(
                "modules built here would not load into {}",
                sysroot.kernel().release
            ),
            format!(
                "{} of {} Rust symbols are not among the stock kernel's, for example {example}: the source, the \
                 configuration or the compiler is not the one that it was built with",
                missing.len(),
                ours.len()
            ),
            "choose another kernel with --kernel; if none fits, the archive's compiler has moved on",
        ));
    }
    eprintln!("all {} Rust symbols for modules are exported by the stock kernel", ours.len());
    Ok(())
}

fn exported(header: &str) -> impl Iterator<Item = &str> {
    header
        .lines()
        .filter_map(|line| line.trim().strip_prefix("EXPORT_SYMBOL_RUST_GPL(")?.strip_suffix(");"))
}

fn missing<'a>(ours: &'a [String], symvers: &str) -> Vec<&'a str> {
    let stock: HashSet<&str> = symvers.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    ours.iter().map(String::as_str).filter(|symbol| !stock.contains(symbol)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_the_stock_kernel_lacks_is_found() {
        let header =
            "EXPORT_SYMBOL_RUST_GPL(_Ra);\n/* no export */\nEXPORT_SYMBOL_RUST_GPL(_Rb);\n";
        let ours: Vec<String> = exported(header).map(str::to_owned).collect();
        assert_eq!(ours, ["_Ra", "_Rb"]);
        let symvers = "0x00000000\t_Ra\tvmlinux\tEXPORT_SYMBOL_GPL\t\n";
        assert_eq!(missing(&ours, symvers), ["_Rb"]);
    }
}
