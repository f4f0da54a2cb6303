// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the documents tell people to type, typed.

use std::process::Command;

use anyhow::{ensure, Context as _, Result};

use super::Context;
use crate::packaged::{debs_are_whole, run_saying, serves, until_up};

/// What a newcomer reads.
const WALK: &str = include_str!("../../../docs/first-node.md");
/// The chapter whose blocks are for a node.
const CHAPTER: &str = "## On the node";

/// The blocks of shell of a chapter, in their order.
fn blocks<'t>(text: &'t str, chapter: &str) -> Vec<&'t str> {
    let chapter = text.split_once(chapter).map_or("", |(_, rest)| rest);
    let chapter = chapter.split("\n## ").next().unwrap_or_default();
    let blocks = chapter.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split_once("```").map(|(block, _)| block)).collect()
}

pub fn the_walk_to_a_node_is_as_it_is_written(context: &mut Context) -> Result<()> {
    let blocks = blocks(WALK, CHAPTER);
    ensure!(blocks.len() == 4, "the walk has {} blocks on the node", blocks.len());
    until_up()?;
    let mut said = Vec::new();
    for (block, version) in blocks.iter().zip(["2.0.0", "2.0.0", "2.1.0", "2.0.0"]) {
        let last = block.lines().next_back().unwrap_or_default();
        context.step(last);
        // A newcomer would stop at the first command that fails, and reads what it says.
        let script = format!("set -e\ncd /packages\n{block}");
        let output = Command::new("bash").args(["-c", &script]).output().context("no bash")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(output.status.success(), "{last:?} ended with {}: {text}", output.status);
        serves(version).with_context(|| text.clone())?;
        debs_are_whole()?;
        said.push(text);
    }
    for (text, part) in said.iter().zip(["2.0.0", "", "written before the upgrade", "2.0.0"]) {
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }
    run_saying("findmnt", &["-n", "-o", "SOURCE", "/srv"], "atom")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_a_chapter_are_found_and_no_others() {
        let text = "## A\n```sh\na\n```\n## B\nfirst\n```sh\nb\nc\n```\n```console\nno\n```\n```sh\nd\n```\n## C\n```sh\ne\n```\n";
        assert_eq!(blocks(text, "## B"), ["b\nc\n", "d\n"]);
        assert!(blocks(text, "## D").is_empty());
    }
}
