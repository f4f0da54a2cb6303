// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Addresses of NBD exports as URIs, as `doc/uri.md` of the NBD project has them: `nbd://HOST[:PORT]/EXPORT` and
//! `nbd+unix:///EXPORT?socket=PATH`. Pure.

use std::fmt;
use std::net::Ipv6Addr;

use atom_payload::spec::MAX_STRING_BYTES;

/// The port that IANA has assigned to NBD.
pub const DEFAULT_PORT: u16 = 10809;
/// Longest path of a socket in the file system, in bytes: `sun_path` of unix(7) without its last zero.
const MAX_SOCKET_BYTES: usize = 107;

/// Where an NBD server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// On TCP.
    Tcp {
        /// A name or a literal address, an IPv6 one without brackets and perhaps with `%ZONE`.
        host: String,
        /// The port.
        port: u16,
    },
    /// On a socket in the file system, by its absolute path.
    Unix(String),
}

/// An export of an NBD server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// Where the server listens.
    pub server: Server,
    /// The name of the export; empty for the server's default.
    pub name: String,
}

impl Export {
    /// Reads a URI. The error says what is wrong with it.
    pub fn parse(uri: &str) -> Result<Self, String> {
        if let Some(odd) = uri.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c))
        {
            let mut utf8 = [0; 4];
            let encoded = encode(odd.encode_utf8(&mut utf8), "");
            return Err(format!("{odd:?} cannot stand in a URI: write {encoded}"));
        }
        let (scheme, rest) =
            uri.split_once("://").ok_or("a URI begins with nbd:// or nbd+unix://")?;
        if rest.contains('#') {
            return Err(
                "'#' begins a fragment, which such a URI does not have: write %23".to_owned()
            );
        }
        let (before, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let (authority, name) = before.split_once('/').unwrap_or((before, ""));
        let name = text("name of the export", name)?;
        let server = match scheme.to_ascii_lowercase().as_str() {
            "nbd" => {
                parameters(query, &mut [])?;
                tcp(authority)?
            }
            "nbd+unix" => {
                if !authority.is_empty() {
                    return Err(format!(
                        "{authority:?} stands where a host would: a socket has none, write nbd+unix:///"
                    ));
                }
                let mut socket = [("socket", None)];
                parameters(query, &mut socket)?;
                let [(_, socket)] = socket;
                unix(&socket.ok_or("the parameter socket is missing: write ?socket=PATH")?)?
            }
            "nbds" | "nbds+unix" => {
                return Err("it asks for TLS, which this client does not speak".to_owned())
            }
            other => return Err(format!("{other:?} is no scheme of NBD: use nbd or nbd+unix")),
        };
        Ok(Self { server, name })
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = encode(&self.name, "!$&'()*+,;=:@/");
        match &self.server {
            Server::Tcp { host, port } => {
                match host.split_once('%') {
                    Some((address, zone)) => write!(f, "nbd://[{address}%25{}]", encode(zone, ""))?,
                    None if host.contains(':') => write!(f, "nbd://[{host}]")?,
                    None => write!(f, "nbd://{}", encode(host, "!$&'()*+,;="))?,
                }
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{name}")
            }
            Server::Unix(path) => write!(f, "nbd+unix:///{name}?socket={}", encode(path, "/:@")),
        }
    }
}

fn tcp(authority: &str) -> Result<Server, String> {
    if authority.contains('@') {
        return Err("a user before '@' is for TLS, which this client does not speak".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) =
                rest.split_once(']').ok_or("a ']' is missing behind the address")?;
            let port = match port.strip_prefix(':') {
                None if !port.is_empty() => {
                    return Err(format!("{port:?} stands behind the address"))
                }
                port => port.unwrap_or_default(),
            };
            (literal(inner)?, port)
        }
        None => {
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            if port.contains(':') {
                return Err("an IPv6 address stands in brackets, as nbd://[::1]/".to_owned());
            }
            (text("host", host)?, port)
        }
    };
    if host.is_empty() {
        return Err("the host is missing: write nbd://HOST/EXPORT".to_owned());
    }
    if host.contains([':', '%', '/', '@']) && !authority.starts_with('[') {
        return Err(format!("{host:?} is no name of a host"));
    }
    let port = match port {
        "" => DEFAULT_PORT,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("{digits} is no port: use 1 to 65535"))?,
        other => return Err(format!("{other:?} is no port: use 1 to 65535")),
    };
    Ok(Server::Tcp { host, port })
}

/// An IPv6 address from between brackets. A zone follows `%25` (RFC 6874).
fn literal(inner: &str) -> Result<String, String> {
    let (address, zone) = match inner.split_once("%25") {
        Some((address, zone)) => (address, Some(text("zone", zone)?)),
        None => (inner, None),
    };
    let parsed: Ipv6Addr =
        address.parse().map_err(|_| format!("{address:?} is no IPv6 address"))?;
    match zone {
        None => Ok(parsed.to_string()),
        Some(zone) if zone.is_empty() || zone.contains(['%', '/']) => {
            Err(format!("{zone:?} is no zone of an address"))
        }
        Some(zone) => {
            let host = format!("{parsed}%{zone}");
            match host.len() {
                0..=MAX_STRING_BYTES => Ok(host),
                _ => Err("the zone of the address is too long".to_owned()),
            }
        }
    }
}

fn unix(path: &str) -> Result<Server, String> {
    match path.as_bytes() {
        [b'/', ..] if path.len() <= MAX_SOCKET_BYTES => Ok(Server::Unix(path.to_owned())),
        [b'/', ..] => Err(format!("the path of a socket has at most {MAX_SOCKET_BYTES} bytes")),
        _ => Err(format!("the socket {path:?} needs an absolute path")),
    }
}

/// Takes the parameters that are known, each once, and refuses the others by name.
fn parameters(query: Option<&str>, known: &mut [(&str, Option<String>)]) -> Result<(), String> {
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key = text("name of a parameter", key)?;
        let Some((_, place)) = known.iter_mut().find(|(name, _)| *name == key) else {
            let hint =
                if key.starts_with("tls-") { ": this client does not speak TLS" } else { "" };
            return Err(format!("the parameter {key} is not known{hint}"));
        };
        if place.replace(text("value of a parameter", value)?).is_some() {
            return Err(format!("the parameter {key} is given twice"));
        }
    }
    Ok(())
}

/// Undoes percent-encoding. What comes out is a string as a target can have it.
fn text(what: &str, encoded: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(format!("the {what} has a '%' without two hexadecimal digits: write %25"));
        };
        bytes.push((high << 4 | low) as u8);
    }
    if bytes.contains(&0) {
        return Err(format!("the {what} has a zero byte, which this client does not know"));
    }
    if bytes.len() > MAX_STRING_BYTES {
        return Err(format!("the {what} has more than {MAX_STRING_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("the {what} is not UTF-8"))
}

/// Percent-encodes all but letters, digits, `-._~` and `plain`.
fn encode(text: &str, plain: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match char::from(byte) {
            c if c.is_ascii_alphanumeric() || "-._~".contains(c) || plain.contains(c) => {
                encoded.push(c)
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(host: &str, port: u16, name: &str) -> Export {
        Export { server: Server::Tcp { host: host.to_owned(), port }, name: name.to_owned() }
    }

    fn unix(path: &str, name: &str) -> Export {
        Export { server: Server::Unix(path.to_owned()), name: name.to_owned() }
    }

    #[test]
    fn the_examples_of_the_specification_are_read_as_it_says() {
        for (uri, export) in [
            ("nbd://example.com/disk", tcp("example.com", 10809, "disk")),
            ("nbd://example.com/", tcp("example.com", 10809, "")),
            ("nbd://example.com", tcp("example.com", 10809, "")),
            ("nbd://example.com//disk", tcp("example.com", 10809, "/disk")),
            ("nbd://example.com/hello%20world", tcp("example.com", 10809, "hello world")),
            ("nbd://example.com:10810/export", tcp("example.com", 10810, "export")),
            ("nbd+unix:///disk?socket=/run/sock", unix("/run/sock", "disk")),
        ] {
            assert_eq!(Export::parse(uri), Ok(export), "{uri}");
        }
    }

    #[test]
    fn addresses_and_encodings_of_every_kind_are_read() {
        for (uri, export) in [
            ("NBD://10.0.0.7:/a", tcp("10.0.0.7", 10809, "a")),
            ("nbd://[::1]:1/", tcp("::1", 1, "")),
            ("nbd://[fe80:0:0::5%25eth0]/x", tcp("fe80::5%eth0", 10809, "x")),
            ("nbd://h/%C3%A4%2F%25?", tcp("h", 10809, "ä/%")),
            ("nbd+unix:///?socket=/a%20b%26c", unix("/a b&c", "")),
            ("nbd+unix://?socket=%2Fs&", unix("/s", "")),
        ] {
            assert_eq!(Export::parse(uri), Ok(export), "{uri}");
        }
    }

    #[test]
    fn what_is_no_export_is_refused_with_what_is_wrong() {
        for (uri, why) in [
            ("example.com", "begins with nbd://"),
            ("http://h/e", "no scheme of NBD"),
            ("nbds://h/e", "TLS"),
            ("nbds+unix:///e?socket=/s", "TLS"),
            ("nbd:///e", "host is missing"),
            ("nbd://u@h/e", "TLS"),
            ("nbd://::1/e", "brackets"),
            ("nbd://[::1/e", "']' is missing"),
            ("nbd://[::1]9/e", "stands behind"),
            ("nbd://[1.2.3.4]/e", "no IPv6 address"),
            ("nbd://[fe80::1%eth0]/e", "no IPv6 address"),
            ("nbd://[fe80::1%25]/e", "no zone"),
            ("nbd://h%3a/e", "no name of a host"),
            ("nbd://h:0/e", "no port"),
            ("nbd://h:65536/e", "no port"),
            ("nbd://h:+1/e", "no port"),
            ("nbd://h/e?socket=/s", "parameter socket is not known"),
            ("nbd://h/e?tls-type=psk", "tls-type is not known: this client does not speak TLS"),
            ("nbd://h/e?x-fast", "x-fast is not known"),
            ("nbd://h/e#f", "fragment"),
            ("nbd://h/a b", "write %20"),
            ("nbd://h/ä", "write %C3%A4"),
            ("nbd://h/%", "hexadecimal"),
            ("nbd://h/%+1", "hexadecimal"),
            ("nbd://h/%00", "zero byte"),
            ("nbd://h/%FF", "not UTF-8"),
            ("nbd+unix:///e", "socket is missing"),
            ("nbd+unix:///e?socket=s", "absolute path"),
            ("nbd+unix:///e?socket=%00s", "zero byte"),
            ("nbd+unix:///e?socket=/s&socket=/t", "given twice"),
            ("nbd+unix://h/e?socket=/s", "stands where a host would"),
        ] {
            let said = Export::parse(uri).unwrap_err();
            assert!(said.contains(why), "{uri}: {said}");
        }
        let long = "x".repeat(MAX_STRING_BYTES + 1);
        assert!(Export::parse(&format!("nbd://h/{long}")).is_err());
        assert!(Export::parse(&format!("nbd+unix:///?socket=/{}", &long[..107])).is_err());
    }

    proptest! {
        #[test]
        fn what_was_written_as_a_uri_is_read_as_the_same_export(
            host in "[a-z0-9.-]{1,20}|::[1-9a-f]{1,4}|fe80::1%[a-z0-9.]{1,8}",
            port in 1u16..,
            name in "[^\0]{0,60}",
            path in "/[^\0]{0,25}",
        ) {
            let export = tcp(&host, port, &name);
            prop_assert_eq!(Export::parse(&export.to_string()), Ok(export));
            let export = unix(&path, &name);
            prop_assert_eq!(Export::parse(&export.to_string()), Ok(export));
        }

        #[test]
        fn whatever_is_read_as_an_export_is_written_and_read_again(uri in "nbd(\\+unix)?://[ -~]{0,40}") {
            if let Ok(export) = Export::parse(&uri) {
                prop_assert_eq!(Export::parse(&export.to_string()), Ok(export));
            }
        }
    }
}
