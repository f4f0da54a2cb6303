// SPDX-License-Identifier: GPL-2.0

//! How a device is opened and released by one processor. How several meet is explored by the model checker.

use atom_core::handles::Handles;

#[test]
fn handles_are_counted_as_they_come_and_go() {
    let handles = Handles::none();
    assert_eq!(handles.count(), 0, "a new device is not open");
    for open in 1..=3 {
        assert!(handles.open());
        assert_eq!(handles.count(), open);
    }
    handles.release();
    assert_eq!(handles.count(), 2);
    assert!(handles.open(), "and opened again");
    assert_eq!(handles.count(), 3);
}

#[test]
fn a_device_that_is_open_does_not_go() {
    let handles = Handles::none();
    assert!(handles.open() && handles.open());
    assert!(!handles.refuse(), "open twice");
    handles.release();
    assert!(!handles.refuse(), "open once");
    assert!(handles.open(), "what was not refused can still be opened");
    assert_eq!(handles.count(), 2);
}

#[test]
fn a_device_that_nobody_has_open_goes_once_and_is_not_opened_again() {
    let handles = Handles::none();
    assert!(handles.open());
    handles.release();
    assert!(handles.refuse());
    assert!(!handles.refuse(), "it is going already");
    assert!(!handles.open());
    assert!(!handles.open(), "for good");
    assert_eq!(handles.count(), 0);
}
