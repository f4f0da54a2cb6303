// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a payload refuses, for people: what did not happen, why, and what to do. Pure.

use atom_abi::text::Text;
use atom_payload::answers::Refused;
use nix::errno::Errno;

use crate::problem::Problem;

/// A refusal of which only the error is known.
pub(super) fn plain(what: String, errno: Errno) -> Problem {
    let why = match errno {
        Errno::EBUSY => "it is in use: somebody has its device open".to_owned(),
        Errno::ENOENT => "there is no such volume".to_owned(),
        Errno::EEXIST => "there is a volume of this name already".to_owned(),
        Errno::ENOSPC => "the live payload has no room for another volume".to_owned(),
        errno => errno.desc().to_owned(),
    };
    Problem::refused(what, why, remedy(errno))
}

/// A volume that somebody has open, and perhaps cannot close, because so many of its requests have not ended.
pub(super) fn in_use(what: String, name: Text, requests: u32) -> Problem {
    let busy = plain(what.clone(), Errno::EBUSY);
    if requests == 0 {
        return busy;
    }
    let count = if requests == 1 { "a request has" } else { &format!("{requests} requests have") };
    Problem::refused(
        what,
        format!("{}, and {count} not ended", busy.why),
        format!(
            "{}; if it cannot be closed because a target is away (atomctl volume show {name}), have the server \
             return, or end the requests with an error: atomctl upgrade --at-deadline fail",
            busy.remedy
        ),
    )
}

/// A refusal with a reason. `targets` are those of the command, in their order.
pub(super) fn with_reason(what: String, refused: &Refused<'_>, targets: &[String]) -> Problem {
    let errno = Errno::from_raw(i32::try_from(refused.errno).unwrap_or(0));
    let said = match (refused.why.trim(), errno) {
        ("", Errno::UnknownErrno) => format!("error {}", refused.errno),
        ("", errno) => errno.desc().to_owned(),
        // The client says it for every connection that was not made.
        (why, Errno::UnknownErrno | Errno::ENOTCONN) => why.to_owned(),
        (why, errno) => format!("{why} ({})", errno.desc()),
    };
    let index = refused.target.and_then(|target| usize::try_from(target).ok());
    let why = match (refused.target, index.and_then(|index| targets.get(index))) {
        (Some(target), Some(at)) => format!("target {}, {at}: {said}", target.saturating_add(1)),
        (Some(target), None) => format!("target {}: {said}", target.saturating_add(1)),
        (None, _) => said,
    };
    let remedy = match (index, errno) {
        (Some(_), Errno::EBUSY) => {
            "a target is held exclusively: find who has it with lsblk, findmnt and atomctl volume list"
        }
        (Some(_), Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::ENOTBLK) => {
            "check that the path names a block device, or that the server has this export"
        }
        (_, errno) => remedy(errno),
    };
    Problem::refused(what, why, remedy)
}

/// Whether another address of the same host may do better.
pub(super) fn is_unreachable(errno: u32) -> bool {
    let errno = Errno::from_raw(i32::try_from(errno).unwrap_or(0));
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
            | Errno::EADDRNOTAVAIL
            | Errno::EAFNOSUPPORT
            | Errno::ECONNRESET
            // What the client says for all of these.
            | Errno::ENOTCONN
    )
}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::EBUSY => "unmount and close it first: lsblk, findmnt and lsof tell who has it",
        Errno::ENOENT => "look at atomctl volume list",
        Errno::EEXIST => "choose another name, or destroy that volume first",
        Errno::ENOSPC => "destroy a volume that is not needed",
        Errno::ENOMEM => "free memory and try again",
        Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::ENOTCONN => {
            "check that the server runs and listens there"
        }
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ETIMEDOUT => {
            "check the network and its firewalls between here and the server"
        }
        Errno::EPERM | Errno::EACCES | Errno::EROFS => {
            "check the rights and whether it is read-only"
        }
        Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ELOOP => "change what is asked for",
        Errno::EPROTO => "use the atomctl that was released with the live payload",
        _ => "read the kernel log (dmesg), where the payload says more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Exit;

    const TARGETS: [&str; 2] = ["ram:1M", "nbd://store/db"];

    fn refused(errno: Errno, target: Option<u32>, why: &str) -> Problem {
        let refused = Refused { errno: errno as u32, target, why };
        with_reason("Volume db was not created".to_owned(), &refused, &TARGETS.map(str::to_owned))
    }

    #[test]
    fn a_refusal_names_the_target_that_it_is_about() {
        let problem = refused(Errno::ECONNREFUSED, Some(1), "the server cannot be reached");
        let why = "target 2, nbd://store/db: the server cannot be reached (Connection refused)";
        assert_eq!(problem.why, why);
        assert!(problem.remedy.contains("listens"));
        assert_eq!(problem.exit, Exit::Refused);
    }

    #[test]
    fn a_refusal_without_a_target_or_a_reason_says_what_is_known() {
        assert_eq!(refused(Errno::EEXIST, None, "").why, "File exists");
        assert_eq!(refused(Errno::EIO, Some(7), "").why, "target 8: I/O error");
        let odd = Refused { errno: u32::MAX, target: None, why: "" };
        assert_eq!(with_reason(String::new(), &odd, &[]).why, "error 4294967295");
    }

    #[test]
    fn a_volume_that_cannot_be_closed_is_told_from_one_that_is_only_open() {
        let [open, stuck] = [0, 3].map(|requests| in_use(String::new(), Text::new("db"), requests));
        assert_eq!(open.why, plain(String::new(), Errno::EBUSY).why);
        assert!(stuck.why.contains("3 requests have not ended"), "{}", stuck.why);
        assert!(stuck.remedy.contains("volume show db"), "{}", stuck.remedy);
        assert!(in_use(String::new(), Text::new("db"), 1).why.contains("a request has not"));
    }

    #[test]
    fn a_volume_and_a_target_that_are_in_use_are_told_apart() {
        assert!(plain(String::new(), Errno::EBUSY).remedy.contains("unmount"));
        assert!(refused(Errno::EBUSY, Some(0), "").remedy.contains("exclusively"));
    }
}
