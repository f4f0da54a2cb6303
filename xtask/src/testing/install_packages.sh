# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# Installs packages into a copy of the sysroot that is thrown away, as somebody does who builds an image, and looks at what
# is there then. Runs in the sysroot. $1: the kernel's release; /mnt/rpm and /mnt/deb: the packages, with payloads 2.0.0 and 2.1.0.

set -eu
release=$1
root=/mnt/copy/root
modules=$root/usr/lib/modules/$release/extra/atom
log=/mnt/copy/log

fail() {
    echo "NOT TRUE: $1"
    [ ! -e $log ] || cat $log
    exit 1
}

# A new copy: what is written goes to memory.
fresh() {
    mkdir -p $root
    ! mountpoint -q $root || umount $root
    rm -rf /mnt/copy/up /mnt/copy/work $log
    mkdir /mnt/copy/up /mnt/copy/work
    mount -t overlay overlay -o "lowerdir=/,upperdir=/mnt/copy/up,workdir=/mnt/copy/work" $root
}

# How often the packages have said that they leave the running system alone.
left_alone() {
    grep -c "this is not the root of the running system" $log || :
}

nothing_is_left() {
    left=$(cd /mnt/copy/up && find . -type f -name '*atom*' ! -path './var/lib/rpm/*' ! -path './var/lib/dpkg/*' ! -path "./$1" || :)
    [ -z "$left" ] || fail "nothing is left of packages that were removed: $left"
}

signed_and_readable() {
    for file in $modules/*.ko; do
        [ "$(modinfo -F signer $file)" = "Atom test key" ] || fail "$file is signed with the key that was given"
        [ "$(modinfo -F vermagic $file | cut -d ' ' -f 1)" = "$release" ] || fail "$file is for $release"
    done
}

# What systemd would start at boot for the volumes of the file is what the generator writes.
network_is_waited_for_where_it_is_needed() {
    [ -z "$(find $root/etc/systemd -name 'atom-volumes-network.service')" ] || fail "nobody waits for the network in any case"
    for target in ram:1M nbd://store.example/db; do
        rm -rf $root/run/generated
        mkdir -p $root/run/generated
        printf '[[volume]]\nname = "db"\ntargets = ["%s"]\n' $target >$root/etc/atom/volumes.toml
        chroot $root /usr/lib/systemd/system-generators/atom /run/generated >$log 2>&1 || fail "the generator runs with $target"
        wants=$(find $root/run/generated -name atom-volumes-network.service | wc -l)
        case $target in
        ram:*) [ $wants = 0 ] || fail "the network is not waited for without a volume over a server" ;;
        *) [ $wants = 2 ] || fail "the network is waited for where a volume is over a server" ;;
        esac
    done
    rm -r $root/run/generated $root/etc/atom/volumes.toml
}

units_are_right() {
    for unit in atom atom-volumes; do
        [ -n "$(find $root/etc/systemd/system/*.wants -name $unit.service)" ] || fail "$unit.service is enabled"
    done
    [ -z "$(find $root/etc/systemd -name atom-metrics.timer)" ] || fail "the metrics are off"
    network_is_waited_for_where_it_is_needed
    chroot $root systemd-analyze --man=no verify \
        atom.service atom-recover.service atom-volumes.service atom-volumes-network.service atom-metrics.timer atom-metrics.service >$log 2>&1 || fail "the units are right"
    ! grep -v "^$" $log | grep -i atom || fail "the units are right without a warning"
    chroot $root udevadm verify --no-style /usr/lib/udev/rules.d/60-atom.rules >$log 2>&1 || fail "the udev rules are right"
    [ -s $root/usr/share/man/man1/atomctl-upgrade.1 ] || fail "there are manual pages"
    bash -n $root/usr/share/bash-completion/completions/atomctl
    bash -n $root/usr/lib/dracut/modules.d/90atom/module-setup.sh
    sh -n $root/usr/lib/dracut/modules.d/90atom/atom-start.sh
}

rpm_here() {
    rpm --root=$root --dbpath=/var/lib/rpm "$@"
}

verified() {
    rpm_here -V --nodeps "$@" >$log 2>&1 || fail "rpm -V finds nothing after $step"
}

fresh
cd /mnt/rpm
step="all packages in one transaction"
rpm_here --nodeps -i atom-tools-*.rpm kmod-atom-1*.rpm kmod-atom-payload-2.0.0-*.rpm kmod-atom-payload-2.1.0-*.rpm >$log 2>&1 ||
    fail "rpm installs $step"
[ "$(left_alone)" = 2 ] || fail "each payload says why the machine outside is not upgraded"
verified atom-tools kmod-atom kmod-atom-payload
[ -e $modules/payload_2_0_0.ko ] && [ -e $modules/payload_2_1_0.ko ] || fail "two payloads are installed beside each other"
signed_and_readable
units_are_right

step="one of two payloads is removed"
rpm_here --nodeps -e kmod-atom-payload-2.0.0 >$log 2>&1 || fail "$step"
[ ! -e $modules/payload_2_0_0.ko ] && [ -e $modules/payload_2_1_0.ko ] || fail "$step, and the other one stays"
verified kmod-atom-payload

step="going back"
rpm_here --nodeps -U --oldpackage kmod-atom-payload-2.0.0-*.rpm >$log 2>&1 || fail "rpm -U --oldpackage goes back"
[ -e $modules/payload_2_0_0.ko ] && [ ! -e $modules/payload_2_1_0.ko ] || fail "rpm -U --oldpackage replaces the newer one"
verified kmod-atom-payload

step="a new build of the tools"
echo '# mine' >>$root/etc/atom/atom.toml
rpm_here --nodeps -U --replacepkgs atom-tools-*.rpm >$log 2>&1 || fail "the tools are replaced"
grep -q '^# mine' $root/etc/atom/atom.toml || fail "the operator's configuration stays as it is"
rm $root/etc/systemd/system/sysinit.target.wants/atom.service
rpm_here --nodeps -U --replacepkgs atom-tools-*.rpm >$log 2>&1 || fail "the tools are replaced once more"
[ ! -e $root/etc/systemd/system/sysinit.target.wants/atom.service ] || fail "a unit that was turned off stays off"

rpm_here --nodeps -e kmod-atom-payload kmod-atom atom-tools >$log 2>&1 || fail "everything is removed"
nothing_is_left etc/atom/atom.toml.rpmsave

dpkg_here() {
    dpkg --root=$root --force-depends "$@"
}

fresh
cd /mnt/deb
dpkg_here -i atom-tools_*.deb kmod-atom_*.deb kmod-atom-payload-2.0.0_*.deb kmod-atom-payload-2.1.0_*.deb \
    atom-payload_2.1.0-*.deb >$log 2>&1 || fail "dpkg installs all packages at once"
[ "$(left_alone)" = 1 ] || fail "only atom-payload upgrades a machine, and not the one outside"
[ -e $modules/payload_2_0_0.ko ] && [ -e $modules/payload_2_1_0.ko ] || fail "dpkg has two payloads beside each other"
signed_and_readable
units_are_right
sh -n $root/usr/share/initramfs-tools/hooks/atom
sh -n $root/usr/share/initramfs-tools/scripts/local-top/atom
sh -n $root/usr/share/initramfs-tools/scripts/local-block/atom
for package in atom-tools kmod-atom kmod-atom-payload-2.0.0 kmod-atom-payload-2.1.0 atom-payload; do
    [ -z "$(dpkg_here --verify $package)" ] || fail "dpkg --verify finds nothing in $package"
done
dpkg_here -i atom-payload_2.0.0-*.deb >$log 2>&1 || fail "dpkg goes back to an older atom-payload"
[ "$(left_alone)" = 1 ] || fail "going back asks for an upgrade, too"
dpkg_here --purge atom-payload kmod-atom-payload-2.0.0 kmod-atom-payload-2.1.0 kmod-atom atom-tools >$log 2>&1 ||
    fail "dpkg purges everything"
nothing_is_left none
umount $root
