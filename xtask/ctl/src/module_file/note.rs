// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ELF notes, as they stand in a module's file and in `/sys/module/*/notes`.

use atom_abi::image::{Fields, ImageError};

/// The section, and the file in sysfs, that holds the build id.
pub const BUILD_ID_SECTION: &str = ".note.gnu.build-id";

const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

/// The build id among the notes in `bytes`, which are hostile.
pub fn build_id(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields::new(bytes);
    while !fields.is_empty() {
        let (kind, name, content) = next(&mut fields).ok()?;
        if kind == NT_GNU_BUILD_ID && name == GNU && !content.is_empty() {
            return Some(content.to_vec());
        }
    }
    None
}

fn next<'a>(fields: &mut Fields<'a>) -> Result<(u32, &'a [u8], &'a [u8]), ImageError> {
    let name_bytes = length(fields.u32()?)?;
    let content_bytes = length(fields.u32()?)?;
    let kind = fields.u32()?;
    let name = fields.slice(name_bytes)?;
    fields.slice(name_bytes.wrapping_neg() & 3)?;
    let content = fields.slice(content_bytes)?;
    // The padding behind the last note may be missing.
    let padding = content_bytes.wrapping_neg() & 3;
    if !fields.is_empty() {
        fields.slice(padding)?;
    }
    Ok((kind, name, content))
}

fn length(word: u32) -> Result<usize, ImageError> {
    usize::try_from(word).map_err(|_| ImageError::Inconsistent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut bytes = encoded(1, b"Linux\0", b"abc");
        bytes.extend(encoded(NT_GNU_BUILD_ID, GNU, &[7; 20]));
        assert_eq!(build_id(&bytes), Some(vec![7; 20]));
    }

    #[test]
    fn notes_cut_at_any_length_give_no_build_id_and_no_panic() {
        let bytes = encoded(NT_GNU_BUILD_ID, GNU, &[7; 20]);
        for length in 0..bytes.len() {
            assert_eq!(build_id(&bytes[..length]), None);
        }
    }

    #[test]
    fn lengths_beyond_the_end_are_no_build_id() {
        assert_eq!(build_id(&[0xff; 64]), None);
    }
}
