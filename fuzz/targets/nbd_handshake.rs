// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The handshake with an NBD server. The first byte says how the rest is split; the outcome must not depend on it.

#![no_main]

use atom_fuzz::budget;
use atom_payload::nbd::handshake::{Agreed, Goal, Handshake, Refusal};
use libfuzzer_sys::fuzz_target;

fn talk(said: &[u8], piece: usize) -> Result<Option<Agreed>, Refusal> {
    let mut client = Handshake::new("disk", Goal::Transmission).expect("the name is short");
    let mut rest = said;
    loop {
        let sent = client.output().len();
        client.sent(sent);
        assert!(client.output().is_empty(), "what was sent is not sent again");
        let length = client.wanted().min(piece).min(rest.len());
        if length == 0 {
            break;
        }
        let (head, behind) = rest.split_at(length);
        rest = behind;
        client.receive(head)?;
        assert!(client.words().len() <= 48);
    }
    if let Some(agreed) = client.agreed() {
        assert!(agreed.blocks.is_valid() && agreed.bytes <= i64::MAX as u64);
        assert_eq!(client.wanted(), 0, "nothing behind the handshake is taken");
    }
    Ok(client.agreed())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, said)) = bytes.split_first() else { return };
    budget::within(0, || {
        let piece = usize::from(*piece).max(1);
        assert_eq!(talk(said, piece), talk(said, usize::MAX));
    });
});
