// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The documents, for people.

use crate::problem::Problem;

mod event;
mod foresight;
mod journal;
mod lists;
mod paint;
mod policy;
mod recovery;
mod timeline;
mod upgrade;
mod volume;

pub use event::event;
pub use foresight::upgrade_plan;
pub use journal::{attempt, journal};
pub use lists::{history, listing, status, verification};
pub use paint::Paint;
pub use policy::policy;
pub use recovery::recovery;
pub use timeline::timeline;
pub use upgrade::{handoff, upgrade};
pub use volume::{applied, plan, step, volume, volumes};

/// A problem: what happened, why, what to do.
pub fn problem(problem: &Problem, paint: Paint) -> String {
    format!(
        "{} {}\n  why: {}\n  what to do: {}\n",
        paint.bad("error:"),
        problem.what,
        problem.why,
        problem.remedy
    )
}

/// Rows of cells with aligned columns, two spaces apart. No line ends with a space.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        // The width of a formatting macro is at most 65,535, and a name in a damaged file may be longer.
        let filled = |(cell, width): (&String, &usize)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(cell.chars().count())))
        };
        let line: Vec<String> = row.iter().zip(&widths).map(filled).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = [row(["a", "long cell", ""]), row(["longer", "b", "c"])];
        assert_eq!(table(&rows), "a       long cell\nlonger  b          c\n");
    }
}
