// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether a payload's file fits the running kernel, the loaded Atom and the live payload.

use atom_abi::control::{PayloadInfo, Status};
use atom_abi::request::SCRATCH_BYTES;
use atom_abi::stamp::Stamp;
use atom_abi::version::{common_schema, negotiate, Agreement, Offer};

use super::{ModuleFile, Refused};

/// What the loaded Atom brings to the negotiation.
///
/// Its scratch is part of the layout that the hash is made of, so this tool's own number holds
/// wherever the hashes agree.
pub fn atoms_offer(status: &Status) -> Offer {
    Offer {
        abi: status.abi,
        layout_hash: status.layout_hash,
        provides: status.provides,
        requires: 0,
        scratch_bytes: SCRATCH_BYTES as u32,
    }
}

/// Checks what can be checked without Atom: that it is a payload for the kernel `release`.
pub fn check_file<'a>(file: &'a ModuleFile, release: &str) -> Result<&'a Stamp, Refused> {
    let stamp =
        file.stamp.as_ref().ok_or_else(|| Refused::NotAPayload { path: file.path.clone() })?;
    if stamp.version.is_empty() {
        return Err(Refused::BadStamp {
            path: file.path.clone(),
            why: "it has no version".to_owned(),
        });
    }
    if file.kernel() != release {
        return Err(Refused::OtherKernel {
            path: file.path.clone(),
            built_for: file.kernel().to_owned(),
            running: release.to_owned(),
        });
    }
    Ok(stamp)
}

/// Checks whether `file` can work in the kernel `release`, under the Atom of `status`, and take over
/// from `live`. Pure; Atom decides again when the payload registers.
pub fn check(
    file: &ModuleFile,
    release: &str,
    status: &Status,
    live: Option<&PayloadInfo>,
) -> Result<Agreement, Refused> {
    let stamp = check_file(file, release)?;
    let agreement = negotiate(&atoms_offer(status), &stamp.offer)
        .map_err(|refusal| Refused::Negotiation { path: file.path.clone(), refusal })?;
    if let Some(live) = live {
        common_schema(&live.schema, &stamp.schema).map_err(|refusal| Refused::Schema {
            path: file.path.clone(),
            live: live.version.as_str().to_owned(),
            refusal,
        })?;
    }
    Ok(agreement)
}

#[cfg(test)]
mod tests {
    use atom_abi::version::{reason, SchemaRange};

    use super::super::test_file::{live, stamp, status, TestFile, KERNEL};
    use super::*;

    fn refusal_of(stamp: &Stamp) -> Refused {
        let file = TestFile::payload("1.1.0").with_stamp(stamp).parse().unwrap();
        check(&file, KERNEL, &status(), Some(&live())).unwrap_err()
    }

    #[test]
    fn a_payload_that_fits_is_accepted() {
        let file = TestFile::payload("1.1.0").parse().unwrap();
        let agreement = check(&file, KERNEL, &status(), Some(&live())).unwrap();
        assert_eq!(agreement.minor, Offer::ATOM.abi.minor_max);
    }

    #[test]
    fn a_payload_for_another_kernel_is_refused_with_both_names() {
        let file = TestFile::payload("1.1.0").parse().unwrap();
        let text = check(&file, "7.3.1", &status(), None).unwrap_err().to_string();
        assert!(text.contains("7.2.12") && text.contains("7.3.1"), "{text}");
    }

    #[test]
    fn a_release_that_only_begins_alike_is_another_kernel() {
        let file = TestFile::payload("1.1.0").parse().unwrap();
        assert!(matches!(check(&file, "7.2.1", &status(), None), Err(Refused::OtherKernel { .. })));
    }

    #[test]
    fn a_module_without_a_stamp_is_refused() {
        let file = TestFile::payload("1.1.0").without_stamp().parse().unwrap();
        assert!(matches!(check(&file, KERNEL, &status(), None), Err(Refused::NotAPayload { .. })));
    }

    #[test]
    fn a_stamp_without_a_version_is_refused() {
        assert!(matches!(refusal_of(&stamp("")), Refused::BadStamp { .. }));
    }

    #[test]
    fn a_foreign_interface_is_refused_with_its_reason() {
        let fits = stamp("1.1.0");
        let with = |change: &dyn Fn(&mut Offer)| {
            let mut other = fits;
            change(&mut other.offer);
            match refusal_of(&other) {
                Refused::Negotiation { refusal, .. } => refusal.code,
                other => panic!("{other}"),
            }
        };
        assert_eq!(with(&|offer| offer.abi.major += 1), reason::ABI_MAJOR);
        assert_eq!(
            with(&|offer| {
                offer.abi.minor_min = 900;
                offer.abi.minor_max = 901;
            }),
            reason::ABI_MINOR
        );
        assert_eq!(with(&|offer| offer.layout_hash ^= 1), reason::LAYOUT);
        assert_eq!(with(&|offer| offer.requires |= 1 << 60), reason::CAPABILITY);
        assert_eq!(with(&|offer| offer.scratch_bytes = 4096), reason::SCRATCH);
    }

    #[test]
    fn a_schema_that_the_live_payload_does_not_write_is_refused() {
        let mut other = stamp("1.1.0");
        other.schema = SchemaRange { read_min: 8, read_max: 9, write_min: 8, write_max: 9 };
        let refused = refusal_of(&other);
        assert!(matches!(refused, Refused::Schema { .. }));
        assert!(refused.to_string().contains("1.0.0"), "{refused}");
    }

    #[test]
    fn without_a_live_payload_any_schema_will_do() {
        let mut other = stamp("1.1.0");
        other.schema.read_min = 8;
        other.schema.read_max = 9;
        let file = TestFile::payload("1.1.0").with_stamp(&other).parse().unwrap();
        assert!(check(&file, KERNEL, &status(), None).is_ok());
    }
}
