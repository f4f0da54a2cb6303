#!/bin/bash
# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# dracut: Atom, the payloads and the volumes in the initramfs, for a root file system on a volume. In other initramfs there is
# nothing of Atom, so that a new payload needs no new initramfs; add_dracutmodules+=" atom " asks for it all the same.
#
# The payload in an initramfs may be older than the one that was committed last. That does no harm: atom.service upgrades to that
# one when the root file system is there.

# Whether a device of the host is a volume.
is_volume() {
    [[ $(readlink -f "/sys/dev/block/$1") == */block/atom[0-9]* ]]
}

check() {
    require_binaries atomctl || return 1
    if [[ $hostonly ]]; then
        for_each_host_dev_and_slaves is_volume || return 255
        return 0
    fi
    # Only where it is asked for.
    return 255
}

depends() {
    echo udev-rules
}

installkernel() {
    # All payloads that are installed for the kernel of this initramfs: the volumes choose among them.
    local file
    for file in "$dracutsysrootdir/usr/lib/modules/$kernel/extra/atom/"*.ko; do
        [[ -e $file ]] && inst_simple "$file" "/usr/lib/modules/$kernel/extra/atom/${file##*/}"
    done
}

install() {
    inst_binary atomctl /usr/bin/atomctl
    inst_rules 60-atom.rules
    inst_multiple -o /etc/atom/atom.toml /etc/atom/volumes.toml /etc/atom/live /var/lib/atom/live
    inst_hook initqueue/settled 50 "$moddir/atom-start.sh"
    # With systemd there is no such queue otherwise, when all disks are found by udev alone.
    dracut_need_initqueue
}
