// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What lies beneath a folder: whether it may be a device of Atom. Reads no disk.

use std::fs;
use std::path::{Path, PathBuf};

/// File systems that have nothing beneath them.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "rootfs"];
/// No stack of devices is as high.
const HIGHEST: u32 = 16;

/// True when the folder certainly does not depend on an Atom device. What is not a file system on local block devices is not
/// known.
pub(super) fn is_without_atom(folder: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .and_then(|mounts| mount_of(&mounts, folder))
        .is_some_and(|mount| {
            IN_MEMORY.contains(&mount.kind.as_str())
                || !rests_on_atom(&Path::new("/sys/dev/block").join(&mount.device), HIGHEST)
        })
}

/// A mounted file system.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    device: String,
    kind: String,
}

/// What is mounted where the folder is. Of mounts on one another the last one counts.
fn mount_of(mounts: &str, folder: &Path) -> Option<Mount> {
    mounts
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let fields: Vec<&str> = mount.split(' ').collect();
            let place = Path::new(*fields.get(4)?);
            folder.starts_with(place).then_some(())?;
            let device = (*fields.get(2)?).to_owned();
            let kind = source.split(' ').next()?.to_owned();
            Some((place.components().count(), Mount { device, kind }))
        })
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, mount)| mount)
}

/// Whether a device in sysfs is one of Atom or rests on one. One that sysfs does not know may.
fn rests_on_atom(device: &Path, levels: u32) -> bool {
    let Ok(real) = fs::canonicalize(device) else {
        return true;
    };
    let is_atom = real.iter().any(|part| {
        let rest = part.to_str().and_then(|name| name.strip_prefix("atom"));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    if is_atom || levels == 0 {
        return true;
    }
    // A partition rests on its disk, in whose folder it is.
    let whole = if real.join("partition").exists() { real.parent() } else { Some(real.as_path()) };
    let below = whole.map(|whole| whole.join("slaves")).and_then(|path| fs::read_dir(path).ok());
    let below: Vec<PathBuf> = below.into_iter().flatten().flatten().map(|one| one.path()).collect();
    below.iter().any(|one| rests_on_atom(one, levels - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
1 0 0:2 / / rw - rootfs none rw
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 253:0 / /var rw - xfs /dev/mapper/x rw
31 22 0:25 / /run rw - tmpfs tmpfs rw
";

    fn found(folder: &str) -> (String, String) {
        let mount = mount_of(MOUNTS, Path::new(folder)).unwrap();
        (mount.device, mount.kind)
    }

    #[test]
    fn the_deepest_mount_counts_and_of_several_there_the_last() {
        assert_eq!(found("/var/lib/atom"), ("253:0".to_owned(), "xfs".to_owned()));
        assert_eq!(found("/run/atom"), ("0:25".to_owned(), "tmpfs".to_owned()));
        assert_eq!(found("/variable"), ("8:1".to_owned(), "ext4".to_owned()));
    }

    #[test]
    fn a_device_rests_on_atom_at_any_depth() {
        let root = std::env::temp_dir().join(format!("atomctl-beneath-{}", std::process::id()));
        let make = |path: &str| fs::create_dir_all(root.join(path)).unwrap();
        for path in ["atom0/slaves", "sda/sda1", "sda/slaves", "dm-0/slaves", "dm-1/slaves"] {
            make(path);
        }
        fs::write(root.join("sda/sda1/partition"), "1").unwrap();
        let link =
            |to: &str, at: &str| std::os::unix::fs::symlink(root.join(to), root.join(at)).unwrap();
        link("atom0", "dm-0/slaves/atom0");
        link("dm-0", "dm-1/slaves/dm-0");
        for (device, rests) in [
            ("atom0", true),
            ("sda", false),
            ("sda/sda1", false),
            ("dm-0", true),
            ("dm-1", true),
            ("x", true),
        ] {
            assert_eq!(rests_on_atom(&root.join(device), HIGHEST), rests, "{device}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
