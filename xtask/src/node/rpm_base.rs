// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a distribution of RPMs provides, told to the rpm database of a Debian node: rpm knows nothing of what dpkg has
//! installed. The package has no file.

/// What is on a node, as packages for RPM distributions require it.
const PROVIDES: &[&str] = &["/bin/sh", "/usr/bin/sh", "bash", "kmod", "systemd", "udev", "dracut"];

/// The spec of a package that stands for Debian with the kernel `release`.
pub fn spec(release: &str) -> String {
    let provides: String = PROVIDES.iter().map(|name| format!("Provides: {name}\n")).collect();
    format!(
        "Name: debian-base\nVersion: 1\nRelease: 1\nSummary: What Debian provides\nLicense: GPL-2.0\nBuildArch: noarch\n\
         {provides}Provides: kernel-uname-r = {release}\n\
         %description\nStands for what dpkg has installed.\n%files\n"
    )
}

/// Builds it from `/mnt/node/base.spec` and installs it in `/mnt/node/root`.
pub const INSTALL: &str = r#"
cd /mnt/node
rpmbuild --quiet -bb --define '_topdir /mnt/node/rpm' --define '_rpmdir /mnt/node/rpm' base.spec
rpm --root=/mnt/node/root --dbpath=/var/lib/rpm --initdb
rpm --root=/mnt/node/root --dbpath=/var/lib/rpm -i rpm/noarch/debian-base-1-1.noarch.rpm
"#;
