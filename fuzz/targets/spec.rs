// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a volume is made of. What is read is written to the same bytes, and every sector that its layout gives has one
//! place.

#![no_main]

use atom_fuzz::budget;
use atom_payload::layout::Map;
use atom_payload::protocol::Output;
use atom_payload::spec::{Made, MAX_MADE_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    budget::within(0, || {
        let Ok(made) = Made::decode(bytes) else { return };
        let mut encoded = [0; MAX_MADE_BYTES];
        let mut out = Output::new(&mut encoded);
        made.put(&mut out).expect("there is room for all that is read");
        let length = out.len();
        assert_eq!(&encoded[..length], bytes, "it is written as it was read");
        let mut sectors = [0; 16];
        for (place, target) in sectors.iter_mut().zip(made.targets()) {
            *place = target.sectors;
        }
        let Some(map) = Map::new(made.layout, sectors[..made.len()].iter().copied()) else {
            return;
        };
        let last = map.capacity() - 1;
        for sector in [0, last / 3, last / 2, last] {
            let (target, there, room) = map.place(sector).expect("it is within the capacity");
            assert!(there + room <= sectors[target], "it lies on the target");
            assert_eq!(map.inverse(target, there), Some(sector), "nothing else lies there");
        }
    });
});
