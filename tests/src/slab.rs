// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Objects of the kernel's caches that somebody has (`mm/slub.c`).
//!
//! The kernel counts those too that nobody has and that lie ready for a processor in its sheaves: up to 60 in each, two sheaves
//! for each processor, filled at once by the first allocation after they were emptied. So a count is at its least, and says most,
//! at the moment after the cache gave back what it only keeps. Under load another allocation may come between the two; the
//! least of some attempts counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context as _, Result};

/// All caches, with the names that leaks are reported by (`slabinfo(5)`).
const LIST: &str = "/proc/slabinfo";
/// The same, a folder each, with links by the other names of what several share.
const FOLDERS: &str = "/sys/kernel/slab";
/// More than the numbers of a cache take.
const ROOM: usize = 4096;
/// Attempts. What was freed a moment before them is free when a grace period of RCU is over, in the later ones.
const ATTEMPTS: usize = 10;

/// Counts the objects in use of each cache, by name.
pub fn objects_in_use() -> Result<BTreeMap<String, u64>> {
    let list = fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    // All are open before the first count, and until the last: opening takes objects itself.
    let mut caches = Vec::new();
    for name in names(&list) {
        caches.extend(Cache::open(name)?);
    }
    for _ in 0..ATTEMPTS {
        for cache in &mut caches {
            cache.count()?;
        }
    }
    Ok(caches.into_iter().filter_map(|cache| Some((cache.name, cache.least?))).collect())
}

/// A cache that is counted.
struct Cache {
    name: String,
    shrink: File,
    objects: File,
    least: Option<u64>,
}

impl Cache {
    /// None: there is no such cache, any more.
    fn open(name: &str) -> Result<Option<Self>> {
        let folder = Path::new(FOLDERS).join(name);
        let shrink = File::options().write(true).open(folder.join("shrink"));
        match shrink.and_then(|shrink| Ok((shrink, File::open(folder.join("objects"))?))) {
            Ok((shrink, objects)) => {
                Ok(Some(Self { name: name.to_owned(), shrink, objects, least: None }))
            }
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why).with_context(|| format!("cannot count {}", folder.display())),
        }
    }

    /// Empties it of what it only keeps, and counts.
    fn count(&mut self) -> Result<()> {
        let mut text = [0; ROOM];
        let read = self.shrink.write_at(b"1", 0).and_then(|_| self.objects.read_at(&mut text, 0));
        // One that is gone meanwhile refuses.
        let Ok(length) = read else { return Ok(()) };
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        let found = total(&text).with_context(|| format!("{} has {text:?} objects", self.name))?;
        self.least = Some(self.least.map_or(found, |least| least.min(found)));
        Ok(())
    }
}

/// Names of the caches, from the list.
fn names(list: &str) -> impl Iterator<Item = &str> {
    // Two lines say what the columns are.
    list.lines().skip(2).filter_map(|line| line.split_whitespace().next())
}

/// The first number of the file: the total, which the numbers of the nodes follow.
fn total(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_named_as_the_list_does() {
        let list = "slabinfo - version: 2.1\n\
            # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
            kmalloc-64          1200   1280     64   64    1 : tunables    0    0    0 : slabdata 20 20 0\n\
            :0000256              17     32    256   16    1 : tunables    0    0    0 : slabdata 2 2 0\n";
        assert_eq!(names(list).collect::<Vec<_>>(), ["kmalloc-64", ":0000256"]);
    }

    #[test]
    fn a_count_is_the_total_before_those_of_the_nodes() {
        assert_eq!(total("1200 N0=700 N1=500\n"), Some(1200));
        assert_eq!(total("17\n"), Some(17));
        assert_eq!(total("\n"), None);
    }

    #[test]
    fn a_cache_that_is_not_there_has_no_count() {
        assert!(Cache::open("no cache of this name").expect("no error").is_none());
    }
}
