// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which Debian archive to use: the one that the host's own apt is set up with.

use std::path::Path;

use anyhow::{Context, Result};

use crate::command_line::CommandLine;
use crate::problem::refused;

/// Overrides the archive that is read from the host's apt sources.
pub const OVERRIDE: &str = "ATOM_APT_MIRROR";

/// The host's apt settings that reaching the archive may depend on.
const SETTINGS: &[&str] = &[
    "Acquire::Check-Date",
    "Acquire::Check-Valid-Until",
    "Acquire::ftp::Proxy",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
];

/// Debian's names for its suites. A source for any of them tells where the archive is.
const DEBIAN_SUITES: &[&str] = &[
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// One archive address with one suite, as apt's files have it.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// Finds the archive's address, or refuses and says how to name one.
pub fn find() -> Result<String> {
    if let Ok(mirror) = std::env::var(OVERRIDE) {
        if !mirror.is_empty() {
            return Ok(mirror.trim_end_matches('/').to_owned());
        }
    }
    let files = read_apt_files(Path::new("/etc/apt"))?;
    let uri = choose(&files).ok_or_else(|| {
        let read: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        refused(
            "no Debian archive is known",
            format!(
                "none of the host's apt sources is a Debian main archive (read: {})",
                if read.is_empty() { "no files".to_owned() } else { read.join(", ") }
            ),
            format!(
                "set {OVERRIDE} to the address of a Debian archive that this machine can reach"
            ),
        )
    })?;
    resolve_mirror_list(&uri)
}

/// The host's settings that the sysroot's apt must share, each as a line of apt's configuration.
pub fn host_settings() -> Result<Vec<String>> {
    let dump = CommandLine::new("apt-config").args(["dump", "Acquire"]).read()?;
    Ok(shared_settings(&dump))
}

fn shared_settings(dump: &str) -> Vec<String> {
    let shared = |line: &&str| {
        line.split_once(' ').is_some_and(|(name, value)| {
            value != "\"\";" && SETTINGS.iter().any(|s| name.eq_ignore_ascii_case(s))
        })
    };
    dump.lines().filter(shared).map(|line| line.trim_end_matches(';').to_owned()).collect()
}

fn read_apt_files(dir: &Path) -> Result<Vec<(String, String)>> {
    let mut paths = vec![dir.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(dir.join("sources.list.d")) {
        let mut parts: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        paths.extend(parts);
    }
    let mut files = Vec::new();
    for path in paths {
        let apt_reads_it = path.extension().is_some_and(|e| e == "list" || e == "sources");
        if apt_reads_it && path.is_file() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            files.push((path.display().to_string(), text));
        }
    }
    Ok(files)
}

/// Chooses among all sources of the given files (name, text): a Debian suite with the component `main`, preferably
/// at an address that ends as Debian's own does.
fn choose(files: &[(String, String)]) -> Option<String> {
    let sources: Vec<Source> = files
        .iter()
        .flat_map(|(name, text)| {
            if name.ends_with(".sources") {
                parse_deb822(text)
            } else {
                parse_one_line(text)
            }
        })
        .filter(|s| {
            DEBIAN_SUITES.contains(&s.suite.as_str()) && s.components.iter().any(|c| c == "main")
        })
        .collect();
    sources
        .iter()
        .find(|s| s.uri.trim_end_matches('/').ends_with("/debian"))
        .or(sources.first())
        .map(|s| s.uri.trim_end_matches('/').to_owned())
}

fn parse_one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ") else {
            continue;
        };
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']').map(|(_, after)| after).unwrap_or(""),
            None => rest,
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            sources.push(Source { uri, suite, components: words.collect() });
        }
    }
    sources
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let words = |field| field_words(stanza, field);
        let disabled = words("enabled").iter().any(|w| w.eq_ignore_ascii_case("no"));
        if disabled || !words("types").iter().any(|t| t == "deb") {
            continue;
        }
        for uri in words("uris") {
            for suite in words("suites") {
                sources.push(Source { uri: uri.clone(), suite, components: words("components") });
            }
        }
    }
    sources
}

/// The words of a field in a stanza; a line that starts with a space goes on with the field above it.
fn field_words(stanza: &str, wanted: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in stanza.lines() {
        let rest = if line.starts_with([' ', '\t']) {
            line
        } else if let Some((name, rest)) = line.split_once(':') {
            inside = name.trim().eq_ignore_ascii_case(wanted);
            rest
        } else {
            continue;
        };
        if inside {
            words.extend(rest.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Cloud images name a file with a list of mirrors; the sysroot does not have that file, so we take its first line.
fn resolve_mirror_list(uri: &str) -> Result<String> {
    let Some(list) = uri.strip_prefix("mirror+file:") else {
        return Ok(uri.to_owned());
    };
    let path = list.trim_start_matches("//");
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the mirror list {path}"))?;
    text.lines()
        .filter_map(|line| line.split('#').next()?.split_whitespace().next())
        .map(|uri| uri.trim_end_matches('/').to_owned())
        .next()
        .with_context(|| format!("the mirror list {path} names no mirror"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn a_deb822_file_with_comments_and_several_suites_names_the_archive() {
        let text = "Types: deb\n# http://snapshot.invalid/x\nURIs: http://mirror.invalid/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://mirror.invalid/debian-security\n\
                    Suites: bookworm-security\nComponents: main\n";
        let found = choose(&[file("debian.sources", text)]);
        assert_eq!(found.as_deref(), Some("http://mirror.invalid/debian"));
    }

    #[test]
    fn a_one_line_file_with_options_names_the_archive() {
        let text = "# deb http://old.invalid/debian sid main\n\
                    deb [arch=amd64 signed-by=/k] https://mirror.invalid/debian/ trixie main contrib # x\n";
        let found = choose(&[file("sources.list", text)]);
        assert_eq!(found.as_deref(), Some("https://mirror.invalid/debian"));
    }

    #[test]
    fn third_party_archives_are_passed_over() {
        let files = [
            file("cloud.list", "deb https://a.invalid/apt tool-bookworm main"),
            file(
                "node.sources",
                "Types: deb\nURIs: https://b.invalid\nSuites: nodistro\nComponents: main",
            ),
            file("vendor.list", "deb https://c.invalid/linux bookworm main"),
            file("debian.list", "deb https://d.invalid/debian bookworm main"),
        ];
        assert_eq!(choose(&files).as_deref(), Some("https://d.invalid/debian"));
        assert_eq!(choose(&files[..2]), None);
    }

    #[test]
    fn disabled_stanzas_and_source_packages_do_not_count() {
        let text = "Enabled: no\nTypes: deb\nURIs: http://a.invalid/debian\nSuites: trixie\nComponents: main\n\n\
                    Types: deb-src\nURIs: http://b.invalid/debian\nSuites: trixie\nComponents: main\n";
        assert_eq!(choose(&[file("x.sources", text)]), None);
        assert_eq!(choose(&[file("x.list", "deb-src http://a.invalid/debian sid main")]), None);
    }

    #[test]
    fn proxies_and_the_check_of_dates_are_shared_with_the_host() {
        let dump = "Acquire \"\";\nAcquire::Check-Valid-Until \"false\";\nAcquire::http \"\";\n\
                    Acquire::http::Proxy \"http://p.invalid\";\nAcquire::Retries \"3\";\n";
        assert_eq!(
            shared_settings(dump),
            ["Acquire::Check-Valid-Until \"false\"", "Acquire::http::Proxy \"http://p.invalid\""]
        );
    }

    #[test]
    fn a_field_goes_on_over_indented_lines() {
        let text =
            "Types: deb\nURIs:\n http://a.invalid/debian\nSuites: trixie\n forky\nComponents: main";
        assert_eq!(parse_deb822(text).len(), 2);
    }
}
