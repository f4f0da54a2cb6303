// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The phases of a handoff, drawn one below the other along the time.
//!
//! The pause is drawn to scale, between two lines. What happens while I/O is served may take a
//! thousand times as long and is drawn with a fixed width.

use std::fmt::Write;

use atom_abi::control::phase;

use super::Paint;
use crate::quantity::show_micros;
use crate::report::Phases;

/// Width of the pause.
const WIDTH: usize = 44;
/// Width of a phase outside of it.
const MARGIN: usize = 4;

/// Draws the phases. `pause_us` is written below the pause.
pub fn timeline(phases: &Phases, pause_us: u64, paint: Paint) -> String {
    let held = phases.get(phase::NAMES[phase::HELD]).is_some();
    let in_pause = |name: &str| {
        [phase::CLOSE, phase::DRAIN, phase::FREEZE, phase::HELD, phase::ADOPT, phase::OPEN]
            .iter()
            .any(|index| phase::NAMES[*index] == name)
    };
    let total: u64 = phases
        .iter()
        .filter(|(name, _)| in_pause(name))
        .fold(0u64, |sum, (_, us)| sum.saturating_add(us));
    let mut text = String::new();
    let mut at = 0u64;
    for (name, us) in phases.iter() {
        let bar = if in_pause(name) {
            let begin = cells(at, total).min(WIDTH - 1);
            at = at.saturating_add(us);
            let end = cells(at, total).clamp(begin + 1, WIDTH);
            let drawn = "█".repeat(end - begin);
            format!(
                "{}|{}{}{}|",
                " ".repeat(MARGIN),
                " ".repeat(begin),
                paint.notable(&drawn),
                " ".repeat(WIDTH - end)
            )
        } else if name == phase::NAMES[phase::RELEASE] {
            let served = paint.good(&"░".repeat(MARGIN));
            format!("{}|{}|{served}", " ".repeat(MARGIN), " ".repeat(WIDTH))
        } else if name == phase::NAMES[phase::PREPARE] {
            format!("{}|{}|", paint.good(&"░".repeat(MARGIN)), " ".repeat(WIDTH))
        } else if held {
            format!("{}|{}|", " ".repeat(MARGIN), centred("within held", ' '))
        } else {
            String::new()
        };
        let line = format!("  {name:<8} {:>10}  {bar}", show_micros(us));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if total > 0 {
        let pause = show_micros(pause_us);
        let rule = centred(" I/O held ", '-');
        let _ = writeln!(text, "  {:<8} {pause:>10}  {}|{rule}|", "pause", " ".repeat(MARGIN));
    }
    text
}

/// Where a time lies within the width of the pause.
fn cells(us: u64, total: u64) -> usize {
    let scaled = u128::from(us) * WIDTH as u128 / u128::from(total.max(1));
    usize::try_from(scaled).unwrap_or(WIDTH).min(WIDTH)
}

fn centred(text: &str, fill: char) -> String {
    let room = WIDTH.saturating_sub(text.chars().count());
    let fill = |cells: usize| std::iter::repeat_n(fill, cells).collect::<String>();
    format!("{}{text}{}", fill(room / 2), fill(room - room / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_upgrade_shows_the_pause_between_what_is_served() {
        let phases = Phases::from_iter([
            ("prepare", 12_300),
            ("close", 210),
            ("drain", 1_200),
            ("freeze", 90),
            ("adopt", 300),
            ("open", 20),
            ("release", 1_100),
        ]);
        let drawn = timeline(&phases, 1_820, Paint::PLAIN);
        let expected = "  \
  prepare    12.30 ms  ░░░░|                                            |
  close        210 us      |█████                                       |
  drain       1.20 ms      |     █████████████████████████████          |
  freeze        90 us      |                                  ██        |
  adopt        300 us      |                                    ███████ |
  open          20 us      |                                           █|
  release     1.10 ms      |                                            |░░░░
  pause       1.82 ms      |----------------- I/O held -----------------|
";
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn the_tools_own_steps_of_a_cold_upgrade_are_marked_as_part_of_the_held_time() {
        let phases = Phases::from_iter([
            ("close", 100),
            ("held", 9_000),
            ("rmmod", 3_000),
            ("insmod", 5_000),
            ("adopt", 400),
        ]);
        let drawn = timeline(&phases, 9_500, Paint::PLAIN);
        assert_eq!(drawn.lines().filter(|line| line.contains("within held")).count(), 2);
        assert!(drawn.contains("pause       9.50 ms"), "{drawn}");
    }

    #[test]
    fn any_times_are_drawn_within_the_width() {
        for us in [0, 1, 1_000_000_000, u64::MAX] {
            let phases = Phases::from_iter([("close", us), ("drain", 1), ("open", us)]);
            for line in timeline(&phases, us, Paint::PLAIN).lines() {
                let bar = line.split_once('|').map_or("", |(_, bar)| bar);
                assert_eq!(bar.chars().count(), WIDTH + 1, "{line}");
            }
        }
        assert_eq!(timeline(&Phases::default(), 0, Paint::PLAIN), "");
    }
}
