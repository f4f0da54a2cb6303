// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What goes into a sysroot. Every change here makes new sysroots; the old ones stay as they are.

/// To be raised when the stages change in a way that their inputs do not show.
pub const VERSION: u32 = 2;

/// The compiler that Kbuild needs for Rust modules, in the suite's own versions.
const COMPILER: &[&str] = &[
    "rustc",
    "rust-src",
    "rust-clippy",
    "rustfmt",
    "bindgen",
    "clang",
    "libclang-dev",
    "gcc",
    "libc6-dev",
];

/// What the kernel's build system calls.
const KERNEL_BUILD: &[&str] = &[
    "make",
    "flex",
    "bison",
    "bc",
    "libelf-dev",
    "libssl-dev",
    "pahole",
    "xz-utils",
    "kmod",
    "cpio",
];

/// What runs in the guest, or runs the guest.
const GUEST: &[&str] = &[
    "fio",
    "e2fsprogs",
    "xfsprogs",
    "util-linux",
    "fdisk",
    "busybox-static",
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
];

/// What scenarios about volumes need: servers of the NBD protocol, what people put on block devices, and what makes
/// their names.
const VOLUMES: &[&str] = &[
    "nbdkit",
    "nbd-server",
    "nbd-client",
    "dmsetup",
    "lvm2",
    "cryptsetup-bin",
    "udev",
    "systemd",
    "iproute2",
    "nftables",
];

/// What makes packages, and what drives many nodes at once.
const OPERATING: &[&str] = &["rpm", "ansible-core", "openssh-client"];

/// All packages besides the kernel's own.
pub fn packages() -> impl Iterator<Item = &'static str> {
    [COMPILER, KERNEL_BUILD, GUEST, VOLUMES, OPERATING].into_iter().flatten().copied()
}
