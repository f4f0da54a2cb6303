// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The protocol between the host and the guest's agent: one JSON document on each line.
//!
//! The host sends requests with numbers of its own choice, and the guest's replies carry the number of the request
//! that they belong to. A line that cannot be read is passed over, because a host that was killed may leave half of
//! one behind; so a host begins with an empty line and a `hello` of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the protocol. Both sides are built from one clone, so they agree or refuse each other.
pub const PROTOCOL: u32 = 1;

/// The name of the virtio port that is the line. A second UART would carry 50 kB each second into an emulated guest,
/// and its interrupts would disturb what scenarios measure.
pub const PORT: &str = "atom.link";

/// What the host asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The host's number for it.
    pub id: u64,
    /// The thing to do.
    #[serde(flatten)]
    pub action: Action,
}

/// The things that the agent can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Say hello again.
    Hello {},
    /// Run a program and stream its output.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Variables to add to its environment.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// Write a file.
    Put {
        /// Where to.
        path: String,
        /// The permission bits.
        mode: u32,
        /// What.
        base64: String,
    },
    /// Turn the guest off. There is no reply.
    Poweroff {},
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request that it answers; absent in the hello that the agent starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The thing that happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The things that happen in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The agent is there.
    Hello {
        /// The protocol that it speaks.
        protocol: u32,
        /// The kernel that it runs on.
        release: String,
    },
    /// A program wrote a line.
    Stdout(String),
    /// A program wrote a line to its error output.
    Stderr(String),
    /// The request is done. For a program it is the exit code, or 128 and its fatal signal.
    Exit(i32),
    /// The request could not be carried out at all.
    Error(String),
}

/// Makes the line for a message, with its end.
pub fn encode<T: Serialize>(message: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a line; `None` for one that is not a message.
pub fn decode<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn requests_are_read_as_they_are_written_down() {
        assert_eq!(
            request(r#"{"id":1,"exec":{"argv":["a","b"],"env":{}}}"#).action,
            Action::Exec { argv: vec!["a".into(), "b".into()], env: BTreeMap::new() }
        );
        assert_eq!(request(r#"{"id":3,"poweroff":{}}"#).action, Action::Poweroff {});
        let put = request(r#"{"id":2,"put":{"path":"/a","mode":420,"base64":"eA=="}}"#);
        assert_eq!(decode::<Request>(&encode(&put).unwrap()), Some(put));
    }

    #[test]
    fn replies_are_written_as_they_are_read() {
        let hello = Reply { id: None, event: Event::Hello { protocol: 1, release: "7".into() } };
        let line = encode(&hello).unwrap();
        assert_eq!(line, b"{\"hello\":{\"protocol\":1,\"release\":\"7\"}}\n");
        let exit: Reply = decode(br#"{"id":1,"exit":0}"#).unwrap();
        assert_eq!((exit.id, exit.event), (Some(1), Event::Exit(0)));
    }

    #[test]
    fn a_line_end_inside_a_text_does_not_end_the_message() {
        let reply = Reply { id: Some(1), event: Event::Stdout("a\nb".into()) };
        let line = encode(&reply).unwrap();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(decode(&line), Some(reply));
    }

    #[test]
    fn half_a_line_is_passed_over() {
        assert_eq!(decode::<Request>(br#""argv":["a"]}}"#), None);
        assert_eq!(decode::<Request>(b"\n"), None);
    }
}
