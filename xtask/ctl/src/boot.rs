// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which payload a machine loads that has just started. Pure.

use crate::release;

/// The versions to try, the first one first: what the operator has chosen, else what was committed last; then the others that are
/// installed, the newest first. A version is in it once, and also when it is not installed: then that is worth a word.
pub fn candidates(
    chosen: Option<&str>,
    committed: Option<&str>,
    installed: &[String],
) -> Vec<String> {
    let mut versions: Vec<String> = installed.to_vec();
    versions.sort_by(|one, other| release::compare(other, one));
    versions.dedup();
    if let Some(first) = chosen.or(committed) {
        versions.retain(|version| version != first);
        versions.insert(0, first.to_owned());
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_comes_first_then_what_was_committed_then_the_newest() {
        let installed = ["2.0.0", "2.1.0", "1.10.0", "2.1.0"].map(str::to_owned);
        let order = |chosen, committed| candidates(chosen, committed, &installed).join(" ");
        assert_eq!(order(None, None), "2.1.0 2.0.0 1.10.0");
        assert_eq!(order(None, Some("2.0.0")), "2.0.0 2.1.0 1.10.0");
        assert_eq!(order(Some("1.10.0"), Some("2.0.0")), "1.10.0 2.1.0 2.0.0");
        assert_eq!(order(None, Some("3.0.0")), "3.0.0 2.1.0 2.0.0 1.10.0");
        assert!(candidates(None, None, &[]).is_empty());
    }
}
