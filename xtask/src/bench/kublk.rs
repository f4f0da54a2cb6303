// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The ublk server of the kernel's own tests, built from the target kernel's source.
//!
//! It needs liburing and the kernel's own headers for user space, which nothing else here does: they are unpacked beside it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::fingerprint::Fingerprint;
use crate::sysroot::stages::Stages;
use crate::sysroot::Sysroot;
use crate::{lock, places};

/// Its name.
pub const NAME: &str = "kublk";

/// The arguments are the source, and the version of the kernel's packages.
const BUILD: &str = r#"
source=$1/tools/testing/selftests/ublk version=$2; cd /mnt/peers; rm -rf unpacked; mkdir unpacked; cd unpacked
apt-get download liburing-dev "linux-libc-dev=$version"
for package in *.deb; do dpkg-deb -x "$package" .; done
cd "$source"
here=/mnt/peers/unpacked/usr
gcc -O2 -w -D_GNU_SOURCE -I "$here/include" -I "$here/include/x86_64-linux-gnu" -o /mnt/peers/kublk \
  kublk.c batch.c common.c fault_inject.c file_backed.c null.c stripe.c "$here/lib/x86_64-linux-gnu/liburing.a" -lpthread -lm
"#;

/// The program; it is built when it is not there.
pub fn program(sysroot: &Sysroot) -> Result<PathBuf> {
    let mut key = Fingerprint::default();
    key.add(BUILD).add(sysroot.name());
    let cache = places::cache()?;
    let dir = cache.join(format!("peers-{}", key.name()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = lock::take(&dir.join("lock"), "builds the server of ublk")?;
    Stages::of(&dir).run(NAME, "build the kernel's own test server of ublk", |step| {
        let inside = sysroot.chroot().bind(&dir, "peers");
        let args = ["build", &sysroot.kernel_source(), &sysroot.kernel().version];
        step.run(&inside.shell(BUILD).args(args))
    })?;
    Ok(dir.join(NAME))
}
