// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What it means for a node that a package of a payload comes or goes. Pure.
//!
//! A package that was installed upgrades the node when all of this holds, and the first that does not is the reason why
//! it does not:
//!
//! 1. hot upgrades by packages are not switched off: by the environment, a kernel argument, or the configuration;
//! 2. the transaction works on the system that runs, not on an image or in a chroot;
//! 3. the package is for the kernel that runs;
//! 4. Atom is loaded and a payload is live;
//! 5. the same transaction installs no newer version. Each package of a transaction announces itself before anything is
//!    installed, and asks for the upgrade after everything is; so the newest one acts, whatever the order is in which the
//!    packages ask, and the node is upgraded once;
//! 6. the version is not live already. The same version in another build has the same name in the kernel, so it cannot be
//!    loaded beside the one that serves;
//! 7. it is newer than the live one, or the live one is not installed any more (`rpm -U --oldpackage`), or the operator has
//!    named it (`apt install atom-payload=VERSION`). To install an older one beside the live one is no wish to go back.

use std::cmp::Ordering;
use std::fmt;

use crate::release;

/// Why hot upgrades by packages are switched off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Off {
    /// By the environment of the transaction.
    Environment,
    /// By an argument of the kernel.
    KernelArgument,
    /// By the configuration.
    Configuration,
    /// The configuration cannot be read, so nobody knows whether they are.
    Unreadable(String),
}

/// What the transaction works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    /// The system that runs.
    Running,
    /// Another root than that of the first process.
    Chroot,
    /// Whoever runs it says that nothing runs here (`SYSTEMD_OFFLINE`).
    Offline,
}

/// What serves the devices of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Serving {
    /// Atom is not loaded, or cannot be reached from here.
    NoAtom,
    /// Atom is loaded, and there is no payload yet.
    Nothing,
    /// No payload is live, and I/O waits or fails.
    Held,
    /// A payload.
    Live {
        /// Its version.
        version: String,
        /// Whether a package of it is installed for the kernel that runs.
        is_installed: bool,
        /// Whether its code is that of the installed file of this version; none where that cannot be known.
        is_same_build: Option<bool>,
    },
}

/// The node, when a package of a payload was installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    /// The version in the package.
    pub version: String,
    /// Whether the operator has named this version, rather than only installed it.
    pub is_named: bool,
    /// Whether hot upgrades by packages are switched off.
    pub off: Option<Off>,
    /// What the transaction works on.
    pub system: System,
    /// The kernel that the package is for.
    pub kernel: String,
    /// The kernel that runs.
    pub running: String,
    /// What serves.
    pub serving: Serving,
    /// All versions that the transaction installs, as far as they have announced themselves.
    pub together: Vec<String>,
}

/// Why a node does not upgrade to a version whose package was installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is switched off.
    Off(Off),
    /// The transaction works on no running system.
    NotHere(System),
    /// The package is for another kernel than the running one.
    OtherKernel {
        /// The kernel that the package is for.
        package: String,
        /// The kernel that runs.
        running: String,
    },
    /// Atom is not loaded.
    NoAtom,
    /// Nothing is live.
    NothingLive,
    /// I/O is held or fails.
    Held,
    /// The transaction installs a newer one.
    NewerTogether(String),
    /// It is live.
    Live,
    /// It is live in another build.
    OtherBuild,
    /// It is older than the live one, which stays installed.
    Older(String),
}

impl Reason {
    /// Whether somebody may have to do something about it.
    pub fn needs_attention(&self) -> bool {
        matches!(self, Self::Off(Off::Unreadable(_)) | Self::Held | Self::OtherBuild)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(Off::Environment) => write!(f, "ATOM_PACKAGE_UPGRADE=off says so"),
            Self::Off(Off::KernelArgument) => write!(f, "the kernel argument atom_hot_upgrade=off says so"),
            Self::Off(Off::Configuration) => write!(f, "packages.hot-upgrade in /etc/atom/atom.toml says so"),
            Self::Off(Off::Unreadable(why)) => write!(f, "{why}"),
            Self::NotHere(System::Offline) => write!(f, "SYSTEMD_OFFLINE says that nothing runs here"),
            Self::NotHere(_) => write!(f, "this is not the root of the running system"),
            Self::OtherKernel { package, running } => {
                write!(f, "the package is for kernel {package}, and {running} runs")
            }
            Self::NoAtom => write!(f, "Atom is not loaded: systemctl start atom.service loads it, or the next boot"),
            Self::NothingLive => write!(f, "no payload is live: systemctl start atom.service loads one, or the next boot"),
            Self::Held => write!(f, "no payload serves and I/O waits: read atomctl status, then atomctl recover"),
            Self::NewerTogether(newer) => write!(f, "{newer} is installed with it"),
            Self::Live => write!(f, "it is live"),
            Self::OtherBuild => write!(
                f,
                "it is live in another build, and both have one name in the kernel: atomctl upgrade --cold replaces it, \
                 or the next boot"
            ),
            Self::Older(live) => write!(
                f,
                "{live} is live, newer and still installed: go back with rpm -U --oldpackage or atomctl upgrade"
            ),
        }
    }
}

impl Installed {
    /// Whether the node upgrades to the version now; the error says why not.
    pub fn decide(&self) -> Result<(), Reason> {
        if let Some(off) = &self.off {
            return Err(Reason::Off(off.clone()));
        }
        if self.system != System::Running {
            return Err(Reason::NotHere(self.system));
        }
        if self.kernel != self.running {
            let (package, running) = (self.kernel.clone(), self.running.clone());
            return Err(Reason::OtherKernel { package, running });
        }
        let (live, is_installed, is_same_build) = match &self.serving {
            Serving::NoAtom => return Err(Reason::NoAtom),
            Serving::Nothing => return Err(Reason::NothingLive),
            Serving::Held => return Err(Reason::Held),
            Serving::Live { version, is_installed, is_same_build } => {
                (version, *is_installed, *is_same_build)
            }
        };
        if let Some(newest) = release::newest(self.together.iter().map(String::as_str)) {
            if release::compare(newest, &self.version) == Ordering::Greater {
                return Err(Reason::NewerTogether(newest.to_owned()));
            }
        }
        if *live == self.version {
            return Err(match is_same_build {
                Some(false) => Reason::OtherBuild,
                _ => Reason::Live,
            });
        }
        let is_older = release::compare(&self.version, live) == Ordering::Less;
        if is_older && is_installed && !self.is_named {
            return Err(Reason::Older(live.clone()));
        }
        Ok(())
    }
}

/// The node, when a package of a payload is about to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removing {
    /// The version in the package.
    pub version: String,
    /// Whether another package takes its place in the same transaction.
    pub is_replaced: bool,
    /// What the transaction works on.
    pub system: System,
    /// The kernel that the package is for.
    pub kernel: String,
    /// The kernel that runs.
    pub running: String,
    /// The version that serves.
    pub live: Option<String>,
}

/// What is done about a package that is about to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Farewell {
    /// Nothing.
    Go,
    /// The file of the live payload is kept: the way back of an upgrade may need it.
    Keep,
    /// It must not go: its payload serves.
    Stay,
}

impl Removing {
    /// What is done about it.
    pub fn decide(&self) -> Farewell {
        let serves = self.system == System::Running
            && self.kernel == self.running
            && self.live.as_ref() == Some(&self.version);
        match (serves, self.is_replaced) {
            (false, _) => Farewell::Go,
            (true, true) => Farewell::Keep,
            (true, false) => Farewell::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(version: &str) -> Serving {
        Serving::Live { version: version.to_owned(), is_installed: true, is_same_build: None }
    }

    fn gone(version: &str) -> Serving {
        Serving::Live { version: version.to_owned(), is_installed: false, is_same_build: None }
    }

    fn built(version: &str, is_same_build: bool) -> Serving {
        Serving::Live {
            version: version.to_owned(),
            is_installed: true,
            is_same_build: Some(is_same_build),
        }
    }

    /// 2.1.0 was installed on a node where 2.0.0 is live.
    fn usual() -> Installed {
        Installed {
            version: "2.1.0".to_owned(),
            is_named: false,
            off: None,
            system: System::Running,
            kernel: "7.2.12".to_owned(),
            running: "7.2.12".to_owned(),
            serving: live("2.0.0"),
            together: vec!["2.1.0".to_owned()],
        }
    }

    #[test]
    fn each_situation_has_one_answer() {
        let owned =
            |versions: &[&str]| versions.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let other_kernel =
            Reason::OtherKernel { package: "7.2.12".to_owned(), running: "7.3.1".to_owned() };
        type Change<'c> = &'c dyn Fn(&mut Installed);
        let table: &[(&str, Change<'_>, Result<(), Reason>)] = &[
            ("newer", &|_| {}, Ok(())),
            ("nobody announced", &|node| node.together.clear(), Ok(())),
            (
                "environment",
                &|node| node.off = Some(Off::Environment),
                Err(Reason::Off(Off::Environment)),
            ),
            (
                "kernel argument",
                &|node| node.off = Some(Off::KernelArgument),
                Err(Reason::Off(Off::KernelArgument)),
            ),
            (
                "configuration",
                &|node| node.off = Some(Off::Configuration),
                Err(Reason::Off(Off::Configuration)),
            ),
            (
                "wrong configuration",
                &|node| node.off = Some(Off::Unreadable("line 1".to_owned())),
                Err(Reason::Off(Off::Unreadable("line 1".to_owned()))),
            ),
            (
                "chroot, where the host's Atom is seen",
                &|node| node.system = System::Chroot,
                Err(Reason::NotHere(System::Chroot)),
            ),
            (
                "image build",
                &|node| node.system = System::Offline,
                Err(Reason::NotHere(System::Offline)),
            ),
            ("other kernel", &|node| node.running = "7.3.1".to_owned(), Err(other_kernel.clone())),
            (
                "other kernel and no Atom",
                &|node| {
                    node.running = "7.3.1".to_owned();
                    node.serving = Serving::NoAtom;
                },
                Err(other_kernel),
            ),
            ("no Atom", &|node| node.serving = Serving::NoAtom, Err(Reason::NoAtom)),
            ("no payload", &|node| node.serving = Serving::Nothing, Err(Reason::NothingLive)),
            ("held", &|node| node.serving = Serving::Held, Err(Reason::Held)),
            ("live", &|node| node.serving = live("2.1.0"), Err(Reason::Live)),
            ("live, same build", &|node| node.serving = built("2.1.0", true), Err(Reason::Live)),
            (
                "live, named",
                &|node| {
                    node.serving = live("2.1.0");
                    node.is_named = true;
                },
                Err(Reason::Live),
            ),
            (
                "live, other build",
                &|node| node.serving = built("2.1.0", false),
                Err(Reason::OtherBuild),
            ),
            (
                "older beside the live one",
                &|node| node.serving = live("2.2.0"),
                Err(Reason::Older("2.2.0".to_owned())),
            ),
            ("older in the place of the live one", &|node| node.serving = gone("2.2.0"), Ok(())),
            (
                "older and named",
                &|node| {
                    node.serving = live("2.2.0");
                    node.is_named = true;
                },
                Ok(()),
            ),
            (
                "ten is more than nine",
                &|node| {
                    node.version = "2.10.0".to_owned();
                    node.together = vec!["2.10.0".to_owned()];
                    node.serving = live("2.9.0");
                },
                Ok(()),
            ),
            (
                "a newer one in the transaction, asked before it",
                &|node| node.together = owned(&["2.1.0", "2.2.0"]),
                Err(Reason::NewerTogether("2.2.0".to_owned())),
            ),
            (
                "a newer one in the transaction, asked after it",
                &|node| {
                    node.together = owned(&["2.2.0", "2.1.0"]);
                    node.serving = live("2.2.0");
                },
                Err(Reason::NewerTogether("2.2.0".to_owned())),
            ),
            (
                "the newest of a transaction",
                &|node| node.together = owned(&["2.1.0", "2.0.1", "1.2.0"]),
                Ok(()),
            ),
        ];
        for (what, change, expected) in table {
            let mut node = usual();
            change(&mut node);
            assert_eq!(node.decide(), *expected, "{what}");
        }
    }

    #[test]
    fn what_a_reason_says_names_what_to_do_where_there_is_something() {
        for (reason, word) in [
            (Reason::NoAtom, "systemctl start atom"),
            (Reason::Held, "atomctl recover"),
            (Reason::OtherBuild, "--cold"),
            (Reason::Older("2.2.0".to_owned()), "--oldpackage"),
            (Reason::Off(Off::KernelArgument), "atom_hot_upgrade"),
        ] {
            assert!(reason.to_string().contains(word), "{reason}");
        }
        assert!(Reason::Held.needs_attention() && !Reason::Live.needs_attention());
    }

    #[test]
    fn a_live_payload_stays_unless_it_is_replaced() {
        let node = |live: Option<&str>, is_replaced| Removing {
            version: "2.1.0".to_owned(),
            is_replaced,
            system: System::Running,
            kernel: "7.2.12".to_owned(),
            running: "7.2.12".to_owned(),
            live: live.map(str::to_owned),
        };
        assert_eq!(node(Some("2.1.0"), false).decide(), Farewell::Stay);
        assert_eq!(node(Some("2.1.0"), true).decide(), Farewell::Keep);
        assert_eq!(node(Some("2.0.0"), false).decide(), Farewell::Go);
        assert_eq!(node(None, false).decide(), Farewell::Go);
        let elsewhere = Removing { running: "7.3.1".to_owned(), ..node(Some("2.1.0"), false) };
        assert_eq!(elsewhere.decide(), Farewell::Go);
        let image = Removing { system: System::Chroot, ..node(Some("2.1.0"), false) };
        assert_eq!(image.decide(), Farewell::Go);
    }
}
