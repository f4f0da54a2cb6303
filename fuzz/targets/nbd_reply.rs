// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The stream of replies of an NBD server, and positions in it. The first byte says how the rest is split, and whether
//! structured replies were agreed on; what is read must not depend on the split, nor on a hand-over after each piece.

#![no_main]

use atom_fuzz::budget;
use atom_payload::nbd::reply::{Event, Fault, Parser, POSITION_BYTES};
use libfuzzer_sys::fuzz_target;

/// All that came out, in one number: events in their order, and each byte of data with its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Digest(u64);

impl Digest {
    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    fn event(&mut self, event: Event) {
        let numbers = match event {
            Event::Simple { cookie, error } => [1, cookie, u64::from(error), 0],
            Event::Data { cookie, offset, bytes, done } => {
                [2 + u64::from(done) * 8, cookie, offset, u64::from(bytes)]
            }
            Event::Hole { cookie, offset, bytes, done } => {
                [3 + u64::from(done) * 8, cookie, offset, u64::from(bytes)]
            }
            Event::End { cookie } => [4, cookie, 0, 0],
            Event::Failed { cookie, error, done } => {
                [5 + u64::from(done) * 8, cookie, u64::from(error), 0]
            }
        };
        numbers.into_iter().for_each(|number| self.add(number));
    }
}

fn read(
    stream: &[u8],
    structured: bool,
    piece: usize,
    handed_over: bool,
) -> (Digest, Option<Fault>) {
    let mut parser = Parser::new(structured);
    let mut digest = Digest(0);
    for mut now in stream.chunks(piece) {
        while !now.is_empty() {
            if let Some((cookie, offset, left)) = parser.data() {
                let (data, behind) = now.split_at(now.len().min(left as usize));
                now = behind;
                for (at, byte) in data.iter().enumerate() {
                    digest.add(cookie);
                    digest.add(offset.saturating_add(at as u64));
                    digest.add(u64::from(*byte));
                }
                if parser.took(data.len() as u32).is_some() {
                    digest.add(6);
                }
                continue;
            }
            match parser.push(now) {
                Err(fault) => return (digest, Some(fault)),
                Ok((taken, event)) => {
                    assert!(taken > 0, "it goes on");
                    now = &now[taken..];
                    let Some(event) = event else { continue };
                    digest.event(event);
                    if let Event::Simple { cookie, error: 0 } = event {
                        parser.expect(cookie, cookie, (cookie % 64) as u32);
                    }
                }
            }
        }
        if handed_over {
            parser = Parser::from_bytes(&parser.to_bytes()).expect("a position is read again");
        }
    }
    (digest, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else { return };
    budget::within(0, || {
        let structured = first & 0x80 != 0;
        let piece = usize::from(first & 0x7f).max(1);
        let whole = read(stream, structured, usize::MAX, false);
        assert_eq!(read(stream, structured, piece, false), whole);
        assert_eq!(read(stream, structured, piece, true), whole);
        if let Some((position, rest)) = stream.split_first_chunk::<POSITION_BYTES>() {
            if let Some(mut parser) = Parser::from_bytes(position) {
                assert_eq!(Parser::from_bytes(&parser.to_bytes()), Some(parser));
                let _ = parser.push(rest);
            }
        }
    });
});
