// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Files that others read at any time: they see the old one or the new one, never a part.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::problem::{Problem, Result};

/// Readable by all: there is nothing secret in them, and their readers are not root.
const MODE: u32 = 0o644;

/// Writes a file whole.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Readers of a whole folder pass over names with an end that they do not know.
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    replace(path, &new, bytes).map_err(|error| {
        let _ = fs::remove_file(&new);
        Problem::undone(
            format!("{} was not written", path.display()),
            error.to_string(),
            "check the folder, its permissions and the space on its disk",
        )
    })
}

fn replace(path: &Path, new: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(new)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = std::env::temp_dir().join(format!("atomctl-whole-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.prom");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let missing = write_whole(&folder.join("no/a.prom"), b"x").unwrap_err();
        assert!(missing.what.contains("a.prom"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
