// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The device of a volume: its partitions, and its name in `/dev/atom`.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Where udev makes a link for each volume.
const LINKS: &str = "/dev/atom";
/// How long partitions and links are waited for. Both come by themselves later.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked again whether a device is still open.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// The rule that makes the links.
const RULE: &str = "60-atom.rules";
/// Where rules are, see udev(7).
const RULE_FOLDERS: [&str; 4] =
    ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];

/// The path of a volume's device.
pub fn path(device: u32) -> String {
    format!("/dev/atom{device}")
}

/// N of `/dev/atomN`, from a path or a name of the kernel, also those of partitions.
pub fn number(text: &str) -> Option<u32> {
    let resolved = fs::canonicalize(text).ok();
    let name = resolved.as_deref().unwrap_or(Path::new(text)).file_name()?.to_str()?;
    let rest = name.strip_prefix("atom")?;
    let (disk, partition) = rest.split_once('p').unwrap_or((rest, "1"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (is_number(disk) && is_number(partition)).then(|| disk.parse().ok())?
}

/// The name of a volume as a path, when udev has made it.
pub fn link(name: &str, device: u32) -> Option<String> {
    link_in(Path::new(LINKS), name, Path::new(&path(device)))
}

fn link_in(folder: &Path, name: &str, device: &Path) -> Option<String> {
    let link = folder.join(name);
    let leads_to = fs::canonicalize(&link).ok()?;
    (leads_to == device).then(|| link.display().to_string())
}

/// Has the kernel read the partitions of a new device, which its first open does. False when it does not
/// answer in time.
pub fn read_partitions(device: u32) -> bool {
    let path = path(device);
    let (done, waited) = mpsc::channel();
    // The read cannot be given a deadline. When it hangs, the thread ends with the process.
    let opens = thread::Builder::new().spawn(move || {
        let _ = done.send(File::open(path).is_ok());
    });
    opens.is_ok() && waited.recv_timeout(PATIENCE).unwrap_or(false)
}

/// The name of a new volume as a path. When udev runs and has the rule, it is waited for; an event that got
/// lost is raised again in between.
pub fn wait_for_link(name: &str, device: u32) -> Option<String> {
    let found = || link(name, device);
    let has_rule = || RULE_FOLDERS.iter().any(|folder| Path::new(folder).join(RULE).exists());
    if !Path::new("/run/udev/control").exists() || !has_rule() {
        return found();
    }
    let folders = [PathBuf::from("/dev"), PathBuf::from(LINKS)];
    wait_in(&folders, PATIENCE / 2, found).or_else(|| {
        let event = Path::new("/sys/class/block").join(format!("atom{device}/uevent"));
        fs::write(event, "change").ok()?;
        wait_in(&folders, PATIENCE / 2, found)
    })
}

/// Waits until somebody closes a device, or for a moment. The device is given free a little later than that is
/// seen, and may have been before; so who waits looks again, and waits again.
pub fn wait_for_close(device: u32) {
    wait_for_close_of(Path::new(&path(device)), BETWEEN_LOOKS);
}

fn wait_for_close_of(path: &Path, limit: Duration) {
    let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
    let watch = Inotify::init(flags).ok().filter(|watch| {
        watch
            .add_watch(path, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CLOSE_NOWRITE)
            .is_ok()
    });
    match watch {
        Some(watch) => wait_for(&watch, limit),
        None => thread::sleep(limit),
    }
}

fn wait_for(watch: &Inotify, limit: Duration) {
    let ms = i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
    let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout);
}

/// Waits until something is found, and looks whenever something is made in one of the folders.
fn wait_in<T>(folders: &[PathBuf], limit: Duration, found: impl Fn() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    let Ok(watch) = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) else {
        return found();
    };
    loop {
        for folder in folders {
            // A folder that is not there yet is watched once its own making has been seen.
            let _ = watch.add_watch(folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        }
        // After the watch began: what is made later wakes the wait below.
        if let Some(found) = found() {
            return Some(found);
        }
        let left = limit.checked_sub(begun.elapsed())?;
        wait_for(&watch, left);
        let _ = watch.read_events();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_device_is_known_by_its_names_and_by_those_of_its_partitions() {
        for (text, device) in [
            ("atom0", Some(0)),
            ("/dev/atom12", Some(12)),
            ("atom3p1", Some(3)),
            ("/dev/atom3p15", Some(3)),
            ("atom", None),
            ("atom-control", None),
            ("atom1p", None),
            ("atom1px", None),
            ("atomx", None),
            ("atom+1", None),
            ("atom99999999999", None),
            ("sda", None),
            ("", None),
        ] {
            assert_eq!(number(text), device, "{text}");
        }
    }

    #[test]
    fn a_link_counts_when_it_leads_to_the_device_and_is_found_as_soon_as_it_is_made() {
        let root = std::env::temp_dir().join(format!("atomctl-link-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let (device, other) = (root.join("atom0"), root.join("atom1"));
        fs::write(&device, "").unwrap();
        fs::write(&other, "").unwrap();
        let folder = root.join("atom");
        let found = || link_in(&folder, "db", &device);
        assert_eq!(found(), None);
        let maker = {
            let (folder, device) = (folder.clone(), device.clone());
            thread::spawn(move || {
                fs::create_dir_all(&folder).unwrap();
                symlink(device, folder.join("db")).unwrap();
            })
        };
        let folders = [root.clone(), folder.clone()];
        let link = wait_in(&folders, Duration::from_secs(60), found);
        assert_eq!(link, Some(folder.join("db").display().to_string()));
        maker.join().unwrap();
        assert_eq!(link_in(&folder, "db", &other), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_close_ends_the_wait_for_it() {
        let path = std::env::temp_dir().join(format!("atomctl-close-{}", std::process::id()));
        let held = File::create(&path).unwrap();
        let closed = path.clone();
        let (begins, begun) = mpsc::channel();
        let waits = thread::spawn(move || {
            begins.send(()).unwrap();
            wait_for_close_of(&closed, Duration::from_secs(60));
        });
        begun.recv().unwrap();
        drop(held);
        // The watch may have begun after that close.
        while !waits.is_finished() {
            drop(File::open(&path).unwrap());
        }
        waits.join().unwrap();
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_never_comes_is_waited_for_no_longer_than_the_limit() {
        let folders = [std::env::temp_dir()];
        assert_eq!(wait_in(&folders, Duration::ZERO, || None::<()>), None);
        assert_eq!(wait_in(&folders, Duration::from_millis(20), || None::<()>), None);
    }
}
