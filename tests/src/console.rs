// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The console of a node, on which systemd says what it starts and stops, also when nothing else runs any more.

/// What it must not say, and what that means.
const RULES: &[(&str, &str)] = &[
    ("[FAILED]", "a unit has failed"),
    ("[DEPEND]", "a unit was not started because another one has failed"),
    ("[ TIME ]", "a unit took too long"),
    ("Timed out", "a unit took too long"),
    ("Failed unmounting", "a file system was in use when it was to be unmounted"),
    ("Could not unmount", "a file system was in use at the end"),
    ("Failed to unmount", "a file system was in use at the end"),
    ("Not all file systems unmounted", "a file system was in use at the end"),
    ("Unable to finalize remaining", "something was in use at the end"),
];

/// The lines that must not be there, each with what it means.
pub fn complaints(console: &str) -> Vec<String> {
    let found = console.lines().filter_map(|line| {
        let (_, meaning) = RULES.iter().find(|(text, _)| line.contains(text))?;
        Some(format!("{} ({meaning})", line.trim()))
    });
    found.collect()
}

/// Whether each of these texts is in a line, and each in a later one than the text before.
pub fn has_in_order(console: &str, texts: &[&str]) -> Result<(), String> {
    let mut lines = console.lines();
    for text in texts {
        if !lines.any(|line| line.contains(text)) {
            return Err(format!("no line with {text:?} where it belongs: {texts:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUTDOWN: &str = "[  OK  ] Unmounted srv.mount - /srv.\n\
        [  OK  ] Stopped atom-volumes.service - Volumes of Atom over local targets.\n\
        [  OK  ] Reached target umount.target - Unmount All Filesystems.\n\
        [   98.259041] reboot: Restarting system\n";

    #[test]
    fn the_order_of_lines_is_looked_at() {
        assert_eq!(has_in_order(SHUTDOWN, &["Unmounted srv", "Stopped atom-v", "reboot:"]), Ok(()));
        assert!(has_in_order(SHUTDOWN, &["Stopped atom-volumes", "Unmounted srv"]).is_err());
        assert!(has_in_order(SHUTDOWN, &["Unmounted srv", "Unmounted mnt"]).is_err());
    }

    #[test]
    fn what_fails_in_a_shutdown_is_found_and_what_ends_well_is_not() {
        assert_eq!(complaints(SHUTDOWN), Vec::<String>::new());
        for line in [
            "[FAILED] Failed unmounting srv.mount - /srv.",
            "[DEPEND] Dependency failed for srv.mount - /srv.",
            "[ TIME ] Timed out waiting for device dev-atom-data.device.",
            "[   90.1] systemd-shutdown[1]: Could not unmount /srv: Device or resource busy",
        ] {
            assert_eq!(complaints(&format!("{SHUTDOWN}{line}\n")).len(), 1, "{line}");
        }
    }
}
