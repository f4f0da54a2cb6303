// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Copies of files whose package went while their payload was live, in `/var/lib/atom/kept/RELEASE`. A cold upgrade goes
//! back to the file of the live module, and a boot loads the version that was committed last.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::kmod;
use crate::module_file::ModuleFile;
use crate::places::KEPT;

/// The copies for the kernel `release`.
pub fn folder(release: &str) -> PathBuf {
    Path::new(KEPT).join(release)
}

/// Keeps a copy of a file, so that a power cut leaves all of it or nothing.
pub fn keep(file: &ModuleFile, folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let kept = folder.join(format!("{}.ko", file.name));
    let part = folder.join(format!("{}.part", file.name));
    let mut out = fs::File::create(&part)?;
    out.write_all(&file.bytes)?;
    out.sync_all()?;
    fs::rename(&part, &kept)?;
    Ok(kept)
}

/// Removes the copies that nobody needs: of a module that `is_needed` does not name, or that packages have in the same
/// build. Those that cannot be removed stay until the next time.
pub fn prune(folder: &Path, packaged: &Path, is_needed: impl Fn(&ModuleFile) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(copy) = ModuleFile::read(&path) else { continue };
        let is_packaged = ModuleFile::read(&packaged.join(format!("{}.ko", copy.name)))
            .is_ok_and(|file| file.bytes == copy.bytes);
        if is_packaged || !is_needed(&copy) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether the code of a loaded module is that of a file; none where that cannot be known.
pub fn is_build_of(file: &ModuleFile) -> Option<bool> {
    let loaded = kmod::build_id(&file.name)?;
    Some(loaded == *file.build_id.as_ref()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::TestFile;

    #[test]
    fn a_copy_stays_while_it_is_needed_and_packages_do_not_have_it() {
        let root = std::env::temp_dir().join(format!("atomctl-kept-{}", std::process::id()));
        let (copies, packaged) = (root.join("kept"), root.join("packaged"));
        fs::create_dir_all(&packaged).unwrap();
        let file = |version: &str| TestFile::payload(version).parse().unwrap();
        let one = keep(&file("1.0.0"), &copies).unwrap();
        let two = keep(&file("1.1.0"), &copies).unwrap();
        assert_eq!(fs::read(&one).unwrap(), file("1.0.0").bytes);
        prune(&copies, &packaged, |copy| copy.version() == "1.0.0");
        assert!(one.exists() && !two.exists());
        fs::write(packaged.join("payload_1_0_0.ko"), b"another build").unwrap();
        prune(&copies, &packaged, |_| true);
        assert!(one.exists());
        fs::write(packaged.join("payload_1_0_0.ko"), file("1.0.0").bytes).unwrap();
        prune(&copies, &packaged, |_| true);
        assert!(!one.exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
