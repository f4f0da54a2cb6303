// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Names for cached things, made from everything that goes into them.

use sha2::{Digest, Sha256};

/// A hash over a sequence of parts, in which `["ab", "c"]` and `["a", "bc"]` differ.
#[derive(Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds a part.
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// The hash as 16 hexadecimal digits, which is enough for a name and short enough to read.
    pub fn name(&self) -> String {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_parts_changes_the_name() {
        let mut one = Fingerprint::default();
        one.add("ab").add("c");
        let mut two = Fingerprint::default();
        two.add("a").add("bc");
        assert_ne!(one.name(), two.name());
        assert_eq!(one.name().len(), 16);
    }
}
