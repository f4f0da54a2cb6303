// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which of two versions of a payload is the newer one. Pure.

use std::cmp::Ordering;

/// Compares two versions: numbers between dots by their value, and `1.0.0-rc` comes before `1.0.0`, as packages have it.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (numbers, suffix) = halves(one);
    let (other_numbers, other_suffix) = halves(other);
    numbers
        .split('.')
        .map(number)
        .cmp(other_numbers.split('.').map(number))
        .then_with(|| suffix.is_none().cmp(&other_suffix.is_none()))
        .then_with(|| suffix.cmp(&other_suffix))
}

/// The newest of some versions.
pub fn newest<'v>(versions: impl IntoIterator<Item = &'v str>) -> Option<&'v str> {
    versions.into_iter().max_by(|one, other| compare(one, other))
}

fn halves(version: &str) -> (&str, Option<&str>) {
    match version.split_once('-') {
        Some((numbers, suffix)) => (numbers, Some(suffix)),
        None => (version, None),
    }
}

/// A number by its value; what is no number comes after all numbers, by its letters.
fn number(part: &str) -> (bool, usize, &str) {
    let digits = part.trim_start_matches('0');
    let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (!is_number, if is_number { digits.len() } else { 0 }, if is_number { digits } else { part })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_people_expect() {
        let ordered = [
            "0.9.9",
            "1.0.0-rc1",
            "1.0.0-rc2",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "1.10.0.1",
            "2.0.0",
            "10.0.0",
            "99999999999999999999999999.0",
            "a.0",
        ];
        for (index, one) in ordered.iter().enumerate() {
            for (position, other) in ordered.iter().enumerate() {
                assert_eq!(compare(one, other), index.cmp(&position), "{one} and {other}");
            }
        }
        assert_eq!(newest(["1.2.0", "1.10.0", "1.10.0-a"]), Some("1.10.0"));
        assert_eq!(newest([]), None);
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }
}
