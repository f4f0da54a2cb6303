// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Signatures of modules, by the kernel's own `sign-file` and with the user's key. A signature covers the file as it is, so
//! it is made after the module was stripped, and nothing may touch the file any more.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command_line::CommandLine;
use crate::places;
use crate::problem::{failed, refused};
use crate::progress::Step;
use crate::sysroot::Sysroot;

/// What a signed module ends with: `MODULE_SIG_STRING` of the kernel.
pub const MARK: &[u8] = b"~Module signature appended~\n";
/// What modules are signed with where the kernel's configuration does not say.
const USUAL_HASH: &str = "sha256";

/// A private key and the certificate that a kernel trusts.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The private key, PEM. Its passphrase, if it has one, is read from `KBUILD_SIGN_PIN`.
    pub key: PathBuf,
    /// The certificate, PEM or DER.
    pub certificate: PathBuf,
}

impl Signing {
    /// Refuses a key or a certificate that is not there or cannot be read.
    pub fn check(&self) -> Result<()> {
        for (what, path) in [("key", &self.key), ("certificate", &self.certificate)] {
            let read = std::fs::read(path);
            let why = match &read {
                Ok(bytes) if bytes.is_empty() => "it is empty".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            return Err(refused(
                format!("the modules cannot be signed with the {what} {}", path.display()),
                why,
                "name a private key in PEM and its certificate, or leave out --sign-key and --sign-cert",
            ));
        }
        Ok(())
    }

    /// Signs a module in place.
    pub fn sign(&self, sysroot: &Sysroot, module: &Path) -> Result<()> {
        let (key_dir, key) = halves(&self.key)?;
        let (certificate_dir, certificate) = halves(&self.certificate)?;
        let (module_dir, name) = halves(module)?;
        let hash = hash_of(
            &std::fs::read_to_string(
                sysroot.outside(&format!("{}/.config", sysroot.kernel_headers())),
            )
            .unwrap_or_default(),
        );
        let command = sysroot
            .chroot()
            .bind(&key_dir, "key")
            .bind(&certificate_dir, "certificate")
            .bind(&module_dir, "module")
            .command(&format!("{}/scripts/sign-file", sysroot.kernel_headers()))
            .arg(&hash)
            .arg(format!("/mnt/key/{key}"))
            .arg(format!("/mnt/certificate/{certificate}"))
            .arg(format!("/mnt/module/{name}"));
        let step = Step::start(
            format!("sign {name}"),
            &places::target().join("logs").join(format!("sign-{name}.log")),
        )?;
        step.run(&command)?;
        let bytes =
            std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
        if !bytes.ends_with(MARK) {
            return Err(failed(
                format!("{name} was not signed"),
                format!("sign-file succeeded and left no signature: {command}"),
                "check the key and the certificate",
            ));
        }
        step.done();
        Ok(())
    }
}

/// The folder and the name of a file.
fn halves(path: &Path) -> Result<(PathBuf, String)> {
    let path =
        std::fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder.to_owned(), name.to_string_lossy().into_owned())),
        _ => Err(anyhow::anyhow!("{} is no file", path.display())),
    }
}

/// The hash that the kernel signs its own modules with: it can check that one at any time.
fn hash_of(configuration: &str) -> String {
    configuration
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_MODULE_SIG_HASH=\"")?.strip_suffix('"'))
        .unwrap_or(USUAL_HASH)
        .to_owned()
}

/// Makes a key and a certificate for it, for tests.
pub fn make_key(sysroot: &Sysroot, folder: &Path) -> Result<Signing> {
    let command: CommandLine = sysroot.chroot().bind(folder, "key").command("openssl").args([
        "req",
        "-new",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-sha256",
        "-days",
        "36500",
        "-batch",
        "-subj",
        "/CN=Atom test key/",
        "-keyout",
        "/mnt/key/key.pem",
        "-out",
        "/mnt/key/cert.pem",
    ]);
    let log = places::target().join("logs/make-key.log");
    let step = Step::start("make a key to sign with", &log)?;
    step.run(&command)?;
    step.done();
    Ok(Signing { key: folder.join("key.pem"), certificate: folder.join("cert.pem") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_missing_is_refused_before_anything_is_built() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let missing = PathBuf::from("/nonexistent/key.pem");
        let with = |key: &PathBuf, certificate: &PathBuf| {
            Signing { key: key.clone(), certificate: certificate.clone() }.check()
        };
        assert!(with(&here, &here).is_ok());
        let error = with(&missing, &here).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/key.pem"), "{error}");
        assert_eq!(crate::problem::exit_code(&error), 3);
        assert!(with(&here, &missing).unwrap_err().to_string().contains("certificate"));
    }

    #[test]
    fn modules_are_signed_with_the_hash_that_the_kernel_uses() {
        assert_eq!(hash_of("A=y\nCONFIG_MODULE_SIG_HASH=\"sha512\"\n"), "sha512");
        assert_eq!(hash_of("# CONFIG_MODULE_SIG is not set\n"), USUAL_HASH);
    }
}
