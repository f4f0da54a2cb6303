#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# In the initramfs, each time the events of devices have settled: what is there already is left as it is, and what lacks a
# disk or a server is tried again the next time.

# The journal of this boot waits in /run until its disk is there.
export ATOM_INITRAMFS=1
if atomctl boot && [ -e /etc/atom/volumes.toml ]; then
    atomctl apply --only local /etc/atom/volumes.toml
    # Without a network this fails, and is tried again.
    [ ! -e /tmp/net.ifaces ] || atomctl apply --only network /etc/atom/volumes.toml
fi
