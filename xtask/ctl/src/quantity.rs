// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Sizes and times, as people write and read them.

use std::time::Duration;

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// Reads a size such as `4096`, `64M`, `1G` or `1GiB`. Units are powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| {
        format!("{text:?} is no size: write a whole number and a unit, such as 64M")
    })?;
    let upper = unit.trim().to_ascii_uppercase();
    let letter = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let shift = match letter {
        "" if upper == "IB" => None,
        "" => Some(0),
        letter => UNITS
            .iter()
            .find(|(name, _)| letter.len() == 1 && letter.starts_with(*name))
            .map(|(_, shift)| *shift),
    }
    .ok_or_else(|| format!("{unit:?} is no unit of size: use K, M, G, T or P"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is more than there can be"))
}

/// Reads a time such as `500ms` or `5s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no time, write for example 500ms or 5s: {error}"))
}

/// A size in the largest unit that leaves no remainder, or else with one decimal.
pub fn show_bytes(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >= 1 << shift);
    match unit {
        None => format!("{bytes} B"),
        Some((name, shift)) if bytes.trailing_zeros() >= *shift => {
            format!("{} {name}iB", bytes >> shift)
        }
        Some((name, shift)) => format!("{:.1} {name}iB", bytes as f64 / (1u64 << shift) as f64),
    }
}

/// A time in the unit that suits it.
pub fn show_micros(us: u64) -> String {
    match us {
        0..=999 => format!("{us} us"),
        1_000..=999_999 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4k", 4096),
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("2 TB", 2 << 40),
            ("512b", 512),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1", "1.5G", "1X", "1iB", "1MM", "64MiBB", "999999999P"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_units_and_not_without() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("5").is_err());
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn sizes_and_times_are_shown_in_a_unit_that_suits_them() {
        assert_eq!(show_bytes(512), "512 B");
        assert_eq!(show_bytes(64 << 20), "64 MiB");
        assert_eq!(show_bytes(1536), "1.5 KiB");
        assert_eq!(show_micros(999), "999 us");
        assert_eq!(show_micros(1_820), "1.82 ms");
        assert_eq!(show_micros(2_500_000), "2.50 s");
    }
}
