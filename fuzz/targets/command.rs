// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Commands to the payload, and its answers. A command that is understood is encoded to the same bytes.

#![no_main]

use atom_fuzz::budget;
use atom_payload::answers::{self, Composed, Created, List, Outcome};
use atom_payload::counts::OPS;
use atom_payload::protocol::{Command, MAX_COMMAND_BYTES};
use atom_payload::shown::Shown;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    budget::within(0, || {
        if let Ok(command) = Command::decode(bytes) {
            let mut encoded = [0; MAX_COMMAND_BYTES];
            let length = command.encode(&mut encoded).expect("there is room for every command");
            let again = Command::decode(&encoded[..length]);
            assert_eq!(again, Ok(command), "a command is encoded as it was read");
            if let Command::Create(create) = command {
                // May be refused, must not panic.
                let _ = create.shape();
            }
        }
        let _ = answers::decode_done(bytes);
        let _ = Created::decode(bytes);
        if let Ok(list) = List::decode(bytes) {
            list.entries().count();
        }
        let _ = answers::decode_outcome_done(bytes);
        if let Ok(Outcome::Done(composed)) = Composed::decode(bytes) {
            composed.targets().count();
        }
        if let Ok(Outcome::Done(shown)) = Shown::decode(bytes) {
            for target in shown.targets() {
                assert_eq!(target.latency().count(), OPS.len(), "each operation has its latency");
                target.connections().count();
                target.failures().count();
            }
        }
    });
});
