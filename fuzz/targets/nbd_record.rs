// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The record of an NBD target in an image. What is read and written again is the same.

#![no_main]

use atom_fuzz::budget;
use atom_payload::nbd::record::{slot, Record, Writer, MAX_RECORD_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    budget::within(0, || {
        let Ok(record) = Record::decode(bytes) else { return };
        let mut again = [0; MAX_RECORD_BYTES];
        let count = record.connections().count();
        let mut writer = Writer::new(&mut again, &record.state, count).expect("there is room");
        for (connection, orphans) in record.connections() {
            assert!(connection.index < 8);
            // What is counted is what is there.
            let (_, counted) = record
                .connections()
                .find(|(c, _)| c.index == connection.index)
                .expect("it is there");
            writer.connection(&connection, counted.count()).expect("there is room");
            for orphan in orphans {
                assert!(slot(orphan.cookie).is_some());
                writer.orphan(&orphan).expect("there is room");
            }
        }
        let length = writer.finish();
        assert_eq!(length, bytes.len());
        let same = Record::decode(&again[..length]).expect("it is read again");
        assert_eq!(same.state, record.state);
        assert!(same.connections().map(|(c, _)| c).eq(record.connections().map(|(c, _)| c)));
    });
});
