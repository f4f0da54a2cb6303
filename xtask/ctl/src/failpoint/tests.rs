// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The variable, and when a point strikes.

use std::time::Duration;

use nix::errno::Errno;

use super::armed::{names, parse, Fault};

#[test]
fn each_point_has_a_name_of_its_own() {
    let mut names = names();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(names.iter().any(|name| name == "upgrade.insert"));
    assert!(names.iter().any(|name| name == "journal.sync"));
    assert!(names.iter().any(|name| name == "spool.rename"));
}

#[test]
fn a_value_names_points_kinds_and_times() {
    let armed =
        parse("journal.sync=error:EIO@2; upgrade.insert=kill;upgrade.switch=delay:50;").unwrap();
    let read: Vec<_> = armed.iter().map(|one| (one.point.as_str(), one.fault, one.at)).collect();
    assert_eq!(
        read,
        [
            ("journal.sync", Fault::Error(Errno::EIO), 2),
            ("upgrade.insert", Fault::Kill, 0),
            ("upgrade.switch", Fault::Delay(Duration::from_millis(50)), 0),
        ]
    );
    assert!(parse("").unwrap().is_empty());
}

#[test]
fn with_a_time_a_point_strikes_once_and_without_one_always() {
    let armed = parse("upgrade.insert=kill@2;upgrade.adopt=kill").unwrap();
    let times = |at: usize| [(); 4].map(|()| armed[at].strikes());
    assert_eq!(times(0), [false, true, false, false]);
    assert_eq!(times(1), [true; 4]);
}

#[test]
fn what_nobody_can_carry_out_is_refused() {
    for text in [
        "upgrade.insert",
        "upgrade.nothing=kill",
        "upgrade.insert=oops",
        "upgrade.insert=kill:1",
        "upgrade.insert=error",
        "upgrade.insert=error:ENOTHING",
        "upgrade.insert=delay:soon",
        "upgrade.insert=kill@0",
        "upgrade.insert=kill@often",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}
