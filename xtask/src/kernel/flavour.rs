// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The debug kernels that there are: what each looks for, and what a guest needs to run one.

/// A kernel that is built here, from the source of the stock kernel, and looks for defects while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// KASAN, lockdep, kmemleak and more, and the kernel's own fault injection.
    Debug,
    /// KCSAN, which cannot be had together with KASAN.
    Kcsan,
}

/// Words of the command line of all of them.
const WORDS: &[&str] = &[
    // A grace period takes longer every few times, in each of its steps, as in RCU's own torture tests.
    "rcutree.gp_preinit_delay=3",
    "rcutree.gp_init_delay=3",
    "rcutree.gp_cleanup_delay=3",
    // Emulated, on a busy host, and several times slower: 20 s without a schedule mean nothing.
    "watchdog_thresh=60",
    "workqueue.watchdog_thresh=240",
    "rcupdate.rcu_cpu_stall_timeout=240",
];

impl Flavour {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Debug, Self::Kcsan];

    /// The one that `--kernel` means by this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flavour| flavour.name() == word)
    }

    /// Its name, for the command line and in the release that it says it is.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Debug => "debug",
            Flavour::Kcsan => "kcsan",
        }
    }

    /// Its configuration, on top of `allnoconfig`.
    pub fn config(self) -> String {
        let own = match self {
            Flavour::Debug => include_str!("config/debug.config"),
            Flavour::Kcsan => include_str!("config/kcsan.config"),
        };
        [include_str!("config/guest.config"), include_str!("config/checks.config"), own].concat()
    }

    /// What Rust modules are compiled with besides. The kernel's build system instruments Rust for KASAN by itself, and for
    /// KCSAN only C. These are its flags for C, in `scripts/Makefile.kcsan`, as rustc takes them.
    pub fn rust_flags(self) -> &'static [&'static str] {
        match self {
            Flavour::Debug => &[],
            Flavour::Kcsan => &[
                "-Zsanitizer=thread",
                "-Cllvm-args=-tsan-compound-read-before-write=1",
                "-Cllvm-args=-tsan-distinguish-volatile=1",
                "-Cllvm-args=-tsan-instrument-func-entry-exit=0",
            ],
        }
    }

    /// What goes on its command line.
    pub fn words(self) -> Vec<String> {
        let own: &[&str] = match self {
            // Without the first the first report would be the last one. Without the second KASAN takes good memory for bad when an
            // interrupt comes in while the kernel asks its first processor what it can: whether there are five levels of page
            // tables is a feature of it, and all of them are forgotten for that moment (`identify_cpu`).
            Flavour::Debug => &["kasan_multi_shot", "no5lvl"],
            // The configuration leaves it off until somebody turns it on.
            Flavour::Kcsan => &["kcsan.early_enable=1"],
        };
        let told = format!("atom.patience={}", self.patience());
        let words = WORDS.iter().chain(own).map(|word| (*word).to_owned());
        words.chain([told]).collect()
    }

    /// How many times as long as on the stock kernel something may take.
    pub fn patience(self) -> u32 {
        match self {
            Flavour::Debug | Flavour::Kcsan => 5,
        }
    }

    /// The memory of a guest with the use of one of so many MiB: KASAN's shadow and quarantine, the records of lockdep and
    /// kmemleak, and the stacks of all of them come on top.
    pub fn memory_mib(self, stock: u32) -> u32 {
        stock + stock / 2 + 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::checked::wanted;

    #[test]
    fn a_flavour_is_found_by_its_name_and_a_release_is_none() {
        assert_eq!(Flavour::named("debug"), Some(Flavour::Debug));
        assert_eq!(Flavour::named("kcsan"), Some(Flavour::Kcsan));
        assert_eq!(Flavour::named("7.2.12+deb13-cloud-amd64"), None);
    }

    #[test]
    fn no_option_is_wanted_twice_in_two_ways() {
        for flavour in Flavour::ALL {
            let config = flavour.config();
            let mut seen = std::collections::BTreeMap::new();
            for (name, value) in wanted(&config) {
                assert_eq!(*seen.entry(name).or_insert(value), value, "{name}");
            }
            assert!(seen.len() > 100);
        }
    }
}
