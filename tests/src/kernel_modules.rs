// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Where the kernel has put modules, by the lines of `/proc/modules`.

use std::ops::Range;

/// The addresses of a module's code, or a little more: the size that the kernel tells is that of code and data together, and
/// ends here where the next module begins.
pub fn code_of(lines: &str, module: &str) -> Option<Range<u64>> {
    let modules: Vec<(&str, u64, u64)> = lines.lines().filter_map(parse).collect();
    let (_, start, size) = *modules.iter().find(|(name, ..)| *name == module)?;
    let next = modules.iter().map(|(_, other, _)| *other).filter(|other| *other > start).min();
    let end = start.checked_add(size)?;
    Some(start..next.map_or(end, |next| next.min(end)))
}

/// Name, address and size of a line such as `atom 4096 1 payload, Live 0xffffffffa0000000 (OE)`.
fn parse(line: &str) -> Option<(&str, u64, u64)> {
    let mut words = line.split_whitespace();
    let (name, size) = (words.next()?, words.next()?.parse().ok()?);
    let address = words.find_map(|word| word.strip_prefix("0x"))?;
    let address = u64::from_str_radix(address, 16).ok().filter(|address| *address != 0)?;
    Some((name, address, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "payload_1_0_0 8192 0 - Live 0xffffffffa0002000 (OE)\n\
                         atom 16384 1 payload_1_0_0, Live 0xffffffffa0000000 (OE)\n";

    #[test]
    fn a_modules_code_ends_where_the_next_module_begins() {
        assert_eq!(code_of(LINES, "atom"), Some(0xffff_ffff_a000_0000..0xffff_ffff_a000_2000));
        let payload = 0xffff_ffff_a000_2000..0xffff_ffff_a000_4000;
        assert_eq!(code_of(LINES, "payload_1_0_0"), Some(payload));
        assert_eq!(code_of(LINES, "nbd"), None);
    }

    #[test]
    fn addresses_that_are_hidden_are_not_known() {
        assert_eq!(code_of("atom 16384 1 - Live 0x0000000000000000 (OE)\n", "atom"), None);
    }
}
