// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which of the archive's kernels to build for.

use std::collections::BTreeSet;

use super::Kernel;

/// The series that Atom is developed and tested with. The newest kernel of them is preferred to newer series, whose
/// internal interfaces may have moved.
pub const TESTED_SERIES: &[&str] = &["7.2"];

/// The kernel flavour: the one made for virtual machines.
pub const FLAVOUR: &str = "-cloud-amd64";

/// A package version that the archive has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A choice and the reasons to show for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kernel to use.
    pub kernel: Kernel,
    /// Why this one.
    pub why: String,
    /// What else somebody may want to know: newer kernels, and why they were passed over.
    pub notes: Vec<String>,
}

/// The kernels of which image, headers and source exist in one and the same version, the newest first.
pub fn candidates(packages: &[Package]) -> Vec<Kernel> {
    let mut found: Vec<Kernel> = packages
        .iter()
        .filter_map(|image| {
            let release = image.name.strip_prefix("linux-image-")?;
            let kernel = Kernel {
                release: release.to_owned(),
                version: image.version.clone(),
                source: format!("linux-source-{}", series(release)?),
            };
            let has =
                |name: &str| packages.iter().any(|p| p.name == name && p.version == kernel.version);
            let complete = release.ends_with(FLAVOUR)
                && has(&format!("linux-headers-{release}"))
                && has(&kernel.source);
            complete.then_some(kernel)
        })
        .collect();
    found.sort_by(|a, b| rank(&b.release).cmp(&rank(&a.release)));
    found.dedup();
    found
}

/// Chooses among the archive's packages, or says why there is no choice.
pub fn choose(packages: &[Package], wanted: Option<&str>) -> Result<Choice, String> {
    let candidates = candidates(packages);
    let known: Vec<&str> = candidates.iter().map(|k| k.release.as_str()).collect();
    if let Some(release) = wanted {
        let kernel = candidates.iter().find(|k| k.release == release);
        return match kernel {
            Some(kernel) => Ok(Choice {
                kernel: kernel.clone(),
                why: "it was asked for".to_owned(),
                notes: Vec::new(),
            }),
            None => Err(format!(
                "the archive does not have image, headers and source of {release}; it has them of: {}",
                known.join(", ")
            )),
        };
    }
    let tested = candidates.iter().find(|k| TESTED_SERIES.contains(&k.series()));
    let newest = candidates.first();
    let (kernel, why) = match (tested, newest) {
        (Some(kernel), _) => (kernel, "it is the newest of a tested series"),
        (None, Some(kernel)) => (kernel, "it is the newest, and there is none of a tested series"),
        (None, None) => {
            return Err(
                "the archive has no kernel of which image, headers and source exist in one version"
                    .to_owned(),
            )
        }
    };
    let newer = |release: &&str| rank(release) > rank(&kernel.release);
    let mut notes: Vec<String> = known
        .iter()
        .filter(|r| newer(r))
        .map(|r| format!("{r} is newer and its series is not tested yet"))
        .collect();
    let headers: BTreeSet<&str> = packages
        .iter()
        .filter_map(|p| p.name.strip_prefix("linux-headers-"))
        .filter(|r| r.ends_with(FLAVOUR) && series(r).is_some())
        .collect();
    notes.extend(
        headers
            .iter()
            .filter(|r| newer(r) && !known.contains(*r))
            .map(|r| format!("{r} is newer and incomplete in the archive")),
    );
    Ok(Choice { kernel: kernel.clone(), why: why.to_owned(), notes })
}

/// The first two numbers of a release, as in `7.2`.
fn series(release: &str) -> Option<String> {
    match numbers(release).as_slice() {
        [major, minor, ..] => Some(format!("{major}.{minor}")),
        _ => None,
    }
}

/// The numbers that a release starts with.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()
        .unwrap_or_default()
        .split('.')
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn rank(release: &str) -> (Vec<u64>, &str) {
    (numbers(release), release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(names: &[(&str, &str)]) -> Vec<Package> {
        names
            .iter()
            .map(|(name, version)| Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
            })
            .collect()
    }

    fn complete(release: &str, version: &str) -> Vec<Package> {
        let source = format!("linux-source-{}", series(release).unwrap());
        archive(&[
            (&format!("linux-image-{release}"), version),
            (&format!("linux-headers-{release}"), version),
            (&source, version),
        ])
    }

    const OLD: &str = "7.2.9+deb13-cloud-amd64";
    const NEW: &str = "7.2.12+deb13-cloud-amd64";
    const NEXT: &str = "7.3.4+deb13-cloud-amd64";

    #[test]
    fn numbers_are_compared_as_numbers() {
        let packages = [complete(OLD, "7.2.9-1"), complete(NEW, "7.2.12-1")].concat();
        assert_eq!(choose(&packages, None).unwrap().kernel.release, NEW);
    }

    #[test]
    fn a_newer_series_that_is_not_tested_is_named_and_not_chosen() {
        let packages = [complete(NEXT, "7.3.4-1"), complete(NEW, "7.2.12-1")].concat();
        let choice = choose(&packages, None).unwrap();
        assert_eq!(choice.kernel.release, NEW);
        assert!(choice.notes[0].contains(NEXT));
    }

    #[test]
    fn a_kernel_without_its_image_is_no_candidate() {
        let mut packages = complete(NEXT, "7.3.4-1");
        packages.remove(0);
        packages.extend(complete(NEW, "7.2.12-1"));
        let choice = choose(&packages, None).unwrap();
        assert_eq!(choice.kernel.release, NEW);
        assert!(choice.notes[0].contains("incomplete"));
    }

    #[test]
    fn a_source_of_another_version_does_not_match() {
        let mut packages = complete(NEW, "7.2.12-1");
        packages[2].version = "7.2.11-1".to_owned();
        assert!(choose(&packages, None).is_err());
    }

    #[test]
    fn a_kernel_that_is_asked_for_must_be_complete() {
        let packages = [complete(OLD, "7.2.9-1"), complete(NEW, "7.2.12-1")].concat();
        assert_eq!(choose(&packages, Some(OLD)).unwrap().kernel.release, OLD);
        assert!(choose(&packages, Some(NEXT)).unwrap_err().contains(NEW));
    }

    #[test]
    fn without_a_tested_series_the_newest_is_chosen() {
        let packages = complete(NEXT, "7.3.4-1");
        assert_eq!(choose(&packages, None).unwrap().kernel.release, NEXT);
    }

    #[test]
    fn debug_images_and_other_flavours_are_no_candidates() {
        let packages = complete("7.2.12+deb13-amd64", "7.2.12-1");
        assert!(candidates(&packages).is_empty());
    }
}
