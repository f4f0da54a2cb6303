// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The commands of the client, against a payload without data.

use super::*;
use crate::problem::Exit;
use crate::volume::fake::Payload;
use crate::volume::wanted::tests::{wanted, STRIPE};

const G: u64 = 1 << 30;

fn name() -> Text {
    Text::new("db")
}

fn make(payload: &Payload, wanted: &Wanted) -> Result<Composed> {
    compose(payload, payload, wanted, &wanted.parts(|_| None).unwrap())
}

fn present_of(payload: &Payload) -> Present {
    present(payload, payload).unwrap().pop().unwrap()
}

#[test]
fn a_volume_is_there_as_it_was_composed() {
    let payload = Payload::new();
    let targets = ["bdev:/dev/vdb", "nbd://store:10810/a%20b", "nbd+unix:///e?socket=/s"];
    let mut volume = wanted(STRIPE, &targets);
    volume.queue_depth = 64;
    volume.targets[1].agreed.connections = 4;
    volume.targets[1].agreed.terms.retries = 9;
    assert_eq!(make(&payload, &volume).unwrap(), Composed { device: 0, bytes: 3 * G });
    let found = present_of(&payload);
    assert_eq!((found.name, found.layout, found.queue_depth), (name(), STRIPE, 64));
    let ats: Vec<String> = found.targets.iter().map(|target| target.at.to_string()).collect();
    assert_eq!(ats, targets);
    assert_eq!(found.targets[1].agreed, volume.targets[1].agreed);
    assert_eq!(found.targets[1].literal.as_deref(), Some("10.0.0.1"));
    assert!(found.targets.iter().all(|target| target.bytes == G && target.capacity == Some(G)));
}

#[test]
fn addresses_of_a_host_are_tried_in_their_order_while_nobody_answers() {
    let payload =
        Payload { silent: vec!["::1".to_owned(), "10.0.0.1".to_owned()], ..Payload::new() };
    let volume = wanted(Layout::Linear, &["nbd://both/", "nbd://store/"]);
    make(&payload, &volume).unwrap();
    let literals: Vec<_> =
        present_of(&payload).targets.into_iter().map(|one| one.literal).collect();
    assert_eq!(literals, [Some("127.0.0.1".to_owned()), Some("10.0.0.2".to_owned())]);
    // The first attempt, and one for each address that failed.
    assert_eq!(payload.seen.borrow().len(), 3);
}

#[test]
fn when_no_address_answers_the_refusal_names_the_target_and_each_address_was_tried_once() {
    let silent = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
    let payload = Payload { silent, ..Payload::new() };
    let volume = wanted(Layout::Linear, &["ram:1M", "nbd://store/e"]);
    let problem = make(&payload, &volume).unwrap_err();
    assert_eq!(problem.what, "Volume db was not created");
    let why = "target 2, nbd://store/e: nobody answers";
    assert_eq!((problem.why.as_str(), problem.exit), (why, Exit::Refused));
    assert_eq!(payload.seen.borrow().len(), 2);
    assert!(payload.volumes.borrow().is_empty());
}

#[test]
fn a_host_without_an_address_is_refused_before_the_payload_is_asked() {
    let payload = Payload::new();
    for host in ["nowhere", "void"] {
        let target = format!("nbd://{host}/e");
        let problem = make(&payload, &wanted(Layout::Linear, &[&target])).unwrap_err();
        assert!(problem.why.starts_with(&format!("{target}: the address of host {host}")));
    }
    assert!(payload.seen.borrow().is_empty());
}

#[test]
fn a_payload_without_the_client_is_named_with_what_to_upgrade_to() {
    let payload = Payload::without_client();
    let problem = make(&payload, &wanted(Layout::Linear, &["bdev:/dev/a"])).unwrap_err();
    assert!(problem.why.contains("payload 1.2.0") && problem.why.contains("2.0.0"), "{problem}");
    assert_eq!(problem.exit, Exit::Refused);
    assert!(reconnect(&payload, name(), None).is_err());
    assert!(resize(&payload, &payload, name(), |_| Use::All, &[]).is_err());
    assert!(payload.seen.borrow().is_empty());
}

#[test]
fn a_device_of_another_volume_is_refused_with_its_position() {
    let payload = Payload::new();
    make(&payload, &wanted(Layout::Linear, &["bdev:/dev/a"])).unwrap();
    let other =
        Wanted { name: Text::new("b"), ..wanted(Layout::Linear, &["ram:1M", "bdev:/dev/a"]) };
    let problem = make(&payload, &other).unwrap_err();
    assert!(problem.why.starts_with("target 2, bdev:/dev/a: it is held"), "{problem}");
    assert!(problem.remedy.contains("exclusively"));
}

#[test]
fn a_volume_takes_what_its_targets_have_gained_and_more_targets() {
    let payload = Payload::new();
    make(&payload, &wanted(Layout::Linear, &["ram:1G", "nbd://both/e"])).unwrap();
    let literal = present_of(&payload).targets[1].literal.clone();
    payload.set_size("nbd://both/e", 2 * G);
    let grown = |index| if index == 1 { Use::All } else { Use::AsBefore };
    assert_eq!(resize(&payload, &payload, name(), grown, &[]).unwrap().bytes, 3 * G);
    let more = [(Target::parse("bdev:/dev/b").unwrap(), Some(G / 2))];
    let bytes = resize(&payload, &payload, name(), |_| Use::AsBefore, &more).unwrap().bytes;
    assert_eq!(bytes, 3 * G + G / 2);
    let found = present_of(&payload);
    assert_eq!(found.targets.len(), 3);
    assert_eq!(found.targets[1].literal, literal, "the address that serves is kept");
}

#[test]
fn a_volume_with_queues_for_polled_io_is_known_by_its_device() {
    let payload = Payload::new();
    let plain = wanted(Layout::Linear, &["ram:1G"]);
    let polled = Wanted { polled: true, name: Text::new("polled"), ..plain.clone() };
    for volume in [&plain, &polled] {
        assert_eq!(volume.simple().is_some(), !volume.polled);
        make(&payload, volume).unwrap();
    }
    let all = present(&payload, &payload).unwrap();
    let known: Vec<_> = all.iter().map(|one| (one.name, one.polled)).collect();
    assert_eq!(known, [(plain.name, false), (polled.name, true)]);
}

#[test]
fn commands_for_a_volume_that_is_not_there_say_so() {
    let payload = Payload::new();
    for problem in [
        reconnect(&payload, name(), Some(0)).unwrap_err(),
        resize(&payload, &payload, name(), |_| Use::All, &[]).unwrap_err(),
        show(&payload, name()).unwrap_err(),
        show(&Payload::without_client(), name()).unwrap_err(),
    ] {
        assert!(problem.why.contains("there is no such volume"), "{problem}");
    }
}

#[test]
fn a_document_has_all_that_is_known_of_a_target() {
    let silent = vec!["10.0.0.1".to_owned()];
    let mut payload = Payload::new();
    make(&payload, &wanted(Layout::Linear, &["ram:1G", "nbd://store/e"])).unwrap();
    payload.silent = silent;
    let document = show(&payload, name()).unwrap();
    assert_eq!(document.volume.state, "retrying");
    assert_eq!(document.volume.targets, ["ram:1G", "nbd://store/e"]);
    let [ram, nbd] = &document.targets[..] else { panic!() };
    assert_eq!((ram.kind.as_str(), ram.terms.is_none()), ("ram", true));
    assert_eq!((nbd.state.as_str(), nbd.last_error.as_str()), ("retrying", "nobody answers"));
    assert_eq!(nbd.connections[0].local_port, 45_332);
    assert_eq!(nbd.terms.as_ref().unwrap().deadline_ms, 60_000);
    let read = &nbd.latency["read"];
    assert_eq!((read.count, read.mean_ns), (5, 6_000));
    assert_eq!(read.classes, [(Some(8192), 1), (Some(32768), 4)]);
    assert_eq!(nbd.last_failures[0].status, "damaged medium");
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<VolumeDocument>(&json).unwrap(), document);
}

#[test]
fn simple_volumes_and_composed_ones_are_listed_together() {
    let payload = Payload::new();
    let simple = Wanted { name: Text::new("a"), ..wanted(Layout::Linear, &["null:1M"]) };
    crate::volume::create(&payload, &simple.simple().unwrap()).unwrap();
    make(&payload, &wanted(STRIPE, &["ram:1G", "bdev:/dev/b"])).unwrap();
    let listed = list(&payload).unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|one| {
            (one.kind.as_str(), one.layout.as_str(), one.targets.join(" "), one.state.as_str())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("null", "linear", "null:1M".to_owned(), "ready"),
            ("stripe", "stripe", "ram:1G bdev:/dev/b".to_owned(), "ready"),
        ]
    );
    let document = show(&payload, Text::new("a")).unwrap();
    assert_eq!((document.volume.bytes, document.targets.len()), (1 << 20, 0));
    let all = present(&payload, &payload).unwrap();
    assert_eq!(all[0].targets[0].at, At::Null);
    assert_eq!(all[0].targets[0].bytes, 1 << 20);
}
