// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Documents that say everything of a kind, compared with the source.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use crate::places;

    /// What stands for a value.
    const VALUE: &str = "…";
    /// Macros that write to the kernel's log, with the level that the page names.
    const MACROS: &[(&str, &str)] = &[
        ("pr_info!(", "info"),
        ("pr_notice!(", "info"),
        ("pr_warn!(", "warn"),
        ("pr_err!(", "err"),
        ("pr_crit!(", "err"),
        ("pr_alert!(", "err"),
        ("pr_emerg!(", "err"),
    ];
    /// Files of variants for tests, of which there is nothing in a release.
    const VARIANTS: &[&str] = &[
        "broken.rs",
        "change.rs",
        "extra.rs",
        "fault.rs",
        "inject.rs",
        "keeper.rs",
        "large.rs",
        "stuck.rs",
    ];

    /// Lines of the log with their levels.
    type Lines = BTreeSet<(String, String)>;

    /// A text of a formatting macro as the page shows it: each run of values, and dots between them, is one.
    fn shown(format: &str) -> String {
        let mut text = String::new();
        let mut rest = format.trim_end_matches("\\n");
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            text.push_str(VALUE);
            rest = after.split_once('}').map_or("", |(_, after)| after);
        }
        text.push_str(rest);
        text.replace(&format!("{VALUE}.{VALUE}"), VALUE)
    }

    fn logged(source: &str) -> Lines {
        let mut lines = Lines::new();
        for (name, level) in MACROS {
            for call in source.split(name).skip(1) {
                let literal = call.trim_start().strip_prefix('"').unwrap_or_else(|| {
                    panic!("{name} without a literal text: {}", call.lines().next().unwrap_or(""))
                });
                let text = literal.split('"').next().unwrap_or_default();
                lines.insert((shown(text), (*level).to_owned()));
            }
        }
        lines
    }

    fn logged_below(dir: &Path) -> Lines {
        let mut lines = Lines::new();
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                lines.extend(logged_below(&path));
            } else if name.ends_with(".rs") && !VARIANTS.contains(&name.as_str()) {
                lines.extend(logged(&std::fs::read_to_string(&path).unwrap()));
            }
        }
        lines
    }

    /// The lines of a chapter's table.
    fn documented(page: &str, chapter: &str) -> Lines {
        let rest = page.split_once(chapter).unwrap().1;
        let chapter = rest.split("\n## ").next().unwrap();
        let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let (text, rest) = row.split_once("` | ").unwrap();
            (text.to_owned(), rest.split(' ').next().unwrap().to_owned())
        })
        .collect()
    }

    #[test]
    fn the_page_about_the_kernel_log_has_every_line_that_is_written_and_no_other() {
        let clone = places::repository();
        let page = std::fs::read_to_string(clone.join("docs/kernel-log.md")).unwrap();
        for (chapter, folder) in [("\n## Atom\n", "atom"), ("\n## Payloads\n", "payload/src")] {
            let (written, said) = (logged_below(&clone.join(folder)), documented(&page, chapter));
            assert!(written.len() > 5, "no lines were found in {folder}");
            let missing: Vec<_> = written.difference(&said).collect();
            let too_many: Vec<_> = said.difference(&written).collect();
            assert!(missing.is_empty() && too_many.is_empty(), "{missing:#?} {too_many:#?}");
        }
    }

    #[test]
    fn values_are_left_out_of_a_line() {
        assert_eq!(shown("{} loaded, ABI {}.{}, layout {:#018x}\\n"), "… loaded, ABI …, layout …");
        assert_eq!(shown("volume {}, target {at}: {}"), "volume …, target …: …");
        assert_eq!(shown("unloaded\\n"), "unloaded");
        let source = "x pr_err!(\n    \"a {}\\n\",\n b);";
        assert_eq!(logged(source), [("a …".to_owned(), "err".to_owned())].into());
    }
}
