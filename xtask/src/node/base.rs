// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What packages require of a distribution, told to package managers that cannot know it: rpm knows nothing of what dpkg has
//! installed, and neither knows of the kernel, which is the sysroot's. The packages that stand for it have no files.

/// What is on a node, as packages for RPM distributions require it.
const PROVIDES: &[&str] = &["/bin/sh", "/usr/bin/sh", "bash", "kmod", "systemd", "udev", "dracut"];

/// The spec of a package that stands for Debian with the kernel `release`.
pub fn spec(release: &str) -> String {
    let provides: String = PROVIDES.iter().map(|name| format!("Provides: {name}\n")).collect();
    format!(
        "Name: debian-base\nVersion: 1\nRelease: 1\nSummary: What Debian provides\nLicense: GPL-2.0\nBuildArch: noarch\n\
         {provides}Provides: {}\n\
         %description\nStands for what dpkg has installed.\n%files\n",
        kernel(release)
    )
}

/// What the kernel provides. A version of rpm has one dash, and the release of Debian's kernels has two.
fn kernel(release: &str) -> String {
    let version = match release.split_once('-') {
        Some((version, rest)) => format!("{version}-{}", rest.replace('-', "_")),
        None => release.to_owned(),
    };
    format!("kernel-uname-r = {version}")
}

/// The control file of a package that stands for the kernel `release`.
pub fn control(release: &str) -> String {
    format!(
        "Package: node-kernel\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@invalid>\n\
         Provides: linux-image-{release}, linux-modules-{release}\n\
         Description: the kernel of this node\n"
    )
}

/// Builds them from `/mnt/node/base.spec` and `/mnt/node/control` and installs them in `/mnt/node/root`.
pub const INSTALL: &str = r#"
cd /mnt/node
rpmbuild --quiet -bb --define '_topdir /mnt/node/rpm' --define '_rpmdir /mnt/node/rpm' base.spec
rpm --root=/mnt/node/root --dbpath=/var/lib/rpm --initdb
rpm --root=/mnt/node/root --dbpath=/var/lib/rpm -i rpm/noarch/debian-base-1-1.noarch.rpm
mkdir -p kernel/DEBIAN
cp control kernel/DEBIAN/
dpkg-deb --root-owner-group --build kernel kernel.deb
dpkg --root=/mnt/node/root -i kernel.deb
"#;
