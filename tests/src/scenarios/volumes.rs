// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes over block devices of this machine: what lies where, what they can do, what is put on them, and what is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_payload::spec::Layout;
use atomctl::report::Mode;
use nix::errno::Errno;

use super::Context;
use crate::composed::{self, stripe, Refusal, Target};
use crate::load::files::Files;
use crate::load::fio::{self, Fio, Shape};
use crate::mapper::Mapped;
use crate::queue;
use crate::random::{self, Random};
use crate::server::{At, Server};
use crate::site::{Site, Spec};
use crate::spare::{self, Spare};
use crate::udev::Udev;
use crate::wait;

const DISKS: [&str; 3] = ["/dev/vda", "/dev/vdb", "/dev/vdc"];
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the blocks that are written here.
const BLOCK: u64 = 4096;
/// Blocks of a MiB.
const MIB: u64 = (1 << 20) / BLOCK;

/// What is asked for, the target that the refusal is about, and its error.
type Case<'a> = (&'a str, Layout, Vec<Target>, Option<u32>, Errno);

/// Where a block of a volume has to be: the disk and the block on it.
fn place(layout: Layout, disks: &[(&str, u64)], block: u64) -> Option<(String, u64)> {
    match layout {
        Layout::Linear => {
            let mut before = 0;
            for (disk, blocks) in disks {
                if block < before + blocks {
                    return Some(((*disk).to_owned(), block - before));
                }
                before += blocks;
            }
            None
        }
        Layout::Stripe { chunk_sectors } => {
            let chunk = u64::from(chunk_sectors) * 512 / BLOCK;
            let (number, within) = (block / chunk, block % chunk);
            let (disk, _) = disks.get((number % disks.len() as u64) as usize)?;
            Some(((*disk).to_owned(), number / disks.len() as u64 * chunk + within))
        }
    }
}

pub fn each_block_lies_where_the_layout_says(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let seed = random::seed()?;
    context.step(&format!("seed {seed}"));
    let mut random = Random::new(seed);
    for (layout, mibs) in [
        (Layout::Linear, vec![5, 64, 7]),
        (stripe(4), vec![16, 16]),
        (stripe(64), vec![32, 32, 32]),
        (stripe(1024), vec![8, 8]),
    ] {
        context.step(&format!("{layout:?} over {mibs:?} MiB"));
        let disks: Vec<(&str, u64)> =
            DISKS.into_iter().zip(&mibs).map(|(disk, mib)| (disk, mib * MIB)).collect();
        let targets: Vec<Target> =
            disks.iter().zip(&mibs).map(|((disk, _), mib)| Target::bdev(disk).mib(*mib)).collect();
        let volume = composed::create(&site, "data", layout, &targets)?;
        let blocks: u64 = mibs.iter().sum::<u64>() * MIB;
        ensure!(volume.bytes == blocks * BLOCK, "{volume:?} instead of {blocks} blocks");
        // Around every border between disks and everywhere else, in requests that cross borders.
        let mut starts: Vec<u64> = (0..40).map(|_| random.below(blocks)).collect();
        starts.extend([0, 5 * MIB - 3, 69 * MIB - 3, blocks - 1, 15, 255, 256]);
        for start in starts.into_iter().filter(|start| *start < blocks) {
            let count = (1 + random.below(300)).min(blocks - start) as usize;
            let words: Vec<u64> = (0..count).map(|_| random.number()).collect();
            queue::write_words(&volume.device, start, &words)?;
            let back = queue::read_words(&volume.device, start, count)?;
            ensure!(
                back.iter().zip(&words).all(|(found, word)| *found == Some(*word)),
                "{layout:?}: {count} blocks from {start} on are not what was written"
            );
            for (block, word) in (start..).zip(&words) {
                let (disk, there) = place(layout, &disks, block).context("no place")?;
                let found = queue::read_words(&disk, there, 1)?;
                ensure!(
                    found == [Some(*word)],
                    "{layout:?}: block {block} is not block {there} of {disk}: {found:?}"
                );
            }
        }
        site.destroy("data")?;
        for (disk, _) in &disks {
            spare::exclusive(disk).with_context(|| format!("{disk} is still held"))?;
        }
    }
    site.leave()
}

pub fn fio_verifies_volumes_of_every_layout(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let targets = DISKS.map(Target::bdev);
    let mut verified = 0;
    for layout in [Layout::Linear, stripe(4), stripe(128)] {
        let volume = composed::create(&site, "data", layout, &targets)?;
        for (depth, sizes) in [(1, "4k-64k"), (32, "4k-1m")] {
            context.step(&format!("{layout:?}, depth {depth}, {sizes}"));
            let depth = format!("--iodepth={depth}");
            let sizes = format!("--bsrange={sizes}");
            let done =
                fio::pass(&volume.device, &["--rw=randwrite", "--size=48m", &depth, &sizes])?;
            verified += done.ios;
        }
        site.destroy("data")?;
    }
    context.fact("verified_ios", verified);
    site.leave()
}

pub fn discards_zeroes_and_flushes_reach_the_disks_that_they_are_for(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let targets = [Target::bdev(DISKS[0]), Target::bdev(DISKS[1])];
    for layout in [Layout::Linear, stripe(64)] {
        context.step(&format!("{layout:?}"));
        let volume = composed::create(&site, "data", layout, &targets)?;
        let device = volume.device.as_str();
        let blocks = volume.bytes / BLOCK;
        let stats = || [queue::stat(DISKS[0]), queue::stat(DISKS[1])];
        let count = |of: fn(&queue::Stat) -> u64| -> Result<[u64; 2]> {
            let [first, second] = stats();
            Ok([of(&first?), of(&second?)])
        };
        // In the linear layout the border between the disks is in the middle of all ranges.
        let middle = blocks / 2;
        queue::write_words(device, middle - 64, &vec![0x5151; 128])?;
        let (from, length) = ((middle - 32) * BLOCK, 64 * BLOCK);
        let range = [format!("--offset={from}"), format!("--length={length}")];

        let discards = count(|stat| stat.discards)?;
        context.run(&["blkdiscard", &range[0], &range[1], device])?;
        let after = count(|stat| stat.discards)?;
        ensure!(after[0] > discards[0] && after[1] > discards[1], "{discards:?}, then {after:?}");

        context.run(&["blkdiscard", "-z", &range[0], &range[1], device])?;
        let words = queue::read_words(device, middle - 64, 128)?;
        let zeroed = |at: usize| (32..96).contains(&at);
        let right =
            |(at, word): (usize, &Option<u64>)| *word == Some(if zeroed(at) { 0 } else { 0x5151 });
        ensure!(words.iter().enumerate().all(right), "zeroes are not where they should be");

        let flushes = count(|stat| stat.flushes)?;
        fs::OpenOptions::new().write(true).open(device)?.sync_data().context("no flush")?;
        let after = count(|stat| stat.flushes)?;
        ensure!(after[0] > flushes[0] && after[1] > flushes[1], "{flushes:?}, then {after:?}");
        site.destroy("data")?;
    }
    site.leave()
}

pub fn the_limits_of_a_volume_are_those_of_its_targets(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open("/tmp/large")?
        .set_len(64 << 20)?;
    context.run(&["modprobe", "loop"])?;
    let large =
        context.run(&["losetup", "--find", "--show", "--sector-size=4096", "/tmp/large"])?;
    let large = large.trim();
    ensure!(queue::limit(large, "logical_block_size")? == 4096, "{large} has small blocks");

    context.step("the largest block, the smallest I/O");
    let targets = [Target::bdev(DISKS[0]), Target::bdev(large)];
    let volume = composed::create(&site, "data", Layout::Linear, &targets)?;
    let limit = |name: &str| queue::limit(&volume.device, name);
    ensure!(limit("logical_block_size")? == 4096, "{}", limit("logical_block_size")?);
    let mut most = u64::MAX;
    for target in [DISKS[0], large] {
        most = most.min(queue::limit(target, "max_hw_sectors_kb")?);
    }
    ensure!(limit("max_hw_sectors_kb")? <= most, "{} above {most}", limit("max_hw_sectors_kb")?);
    ensure!(limit("write_cache").is_err() || most > 0, "unreadable");
    let cache = fs::read_to_string(sys(&volume.device, "queue/write_cache"))?;
    ensure!(cache.trim() == "write back", "{cache}");
    site.destroy("data")?;

    context.step("a stripe says how long its chunks are");
    let targets = [Target::bdev(DISKS[0]), Target::bdev(DISKS[1])];
    let volume = composed::create(&site, "data", stripe(64), &targets)?;
    let limit = |name: &str| queue::limit(&volume.device, name);
    ensure!(limit("chunk_sectors")? == 128, "chunk_sectors is {}", limit("chunk_sectors")?);
    ensure!(
        limit("minimum_io_size")? == 64 << 10,
        "minimum_io_size is {}",
        limit("minimum_io_size")?
    );
    ensure!(
        limit("optimal_io_size")? == 128 << 10,
        "optimal_io_size is {}",
        limit("optimal_io_size")?
    );
    ensure!(limit("discard_max_bytes")? > 0, "no discard over disks that have it");
    site.destroy("data")?;

    context
        .step("a device that takes bios says no length, and the default that stands there is none");
    context.run(&["modprobe", "brd", "rd_nr=1", "rd_size=16384"])?;
    let (volume, memory) = ("long", "/dev/ram0");
    let theirs = queue::limit(memory, "max_hw_sectors_kb")?;
    let made = composed::create(&site, volume, Layout::Linear, &[Target::bdev(memory)])?;
    let ours = queue::limit(&made.device, "max_hw_sectors_kb")?;
    ensure!(theirs < 128 && ours >= 1024, "{ours} KiB over {theirs} KiB");
    site.destroy(volume)?;
    context.run(&["rmmod", "brd"])?;

    context.step("what one target cannot do the volume cannot do");
    let spare = Spare::create(32)?;
    let targets = [Target::bdev(DISKS[0]), Target::bdev(spare.device())];
    let volume = composed::create(&site, "data", Layout::Linear, &targets)?;
    let zeroes = queue::limit(&volume.device, "write_zeroes_max_bytes")?;
    ensure!(
        (zeroes == 0) == (queue::limit(spare.device(), "write_zeroes_max_bytes")? == 0),
        "{zeroes} bytes of zeroes"
    );
    site.destroy("data")?;
    spare.remove()?;
    context.run(&["losetup", "--detach", large])?;
    site.leave()
}

pub fn file_systems_live_on_volumes_through_upgrades(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    // The smallest xfs that its makers still make has 300 MB.
    let disks = ["/dev/vda", "/dev/vdb"].map(Target::bdev);
    for (name, make, check) in [
        ("ext4", &["mkfs.ext4", "-q"][..], &["e2fsck", "-f", "-n"][..]),
        ("xfs", &["mkfs.xfs", "-q", "-f"][..], &["xfs_repair", "-n"][..]),
    ] {
        context.step(name);
        let volume = composed::create(&site, "data", stripe(64), &disks)?;
        context.run(&[make, &[volume.device.as_str()]].concat())?;
        fs::create_dir_all("/mnt/data")?;
        context.run(&["mount", &volume.device, "/mnt/data"])?;
        let mut files = Files::start("/mnt/data/files".as_ref())?;
        for (version, mode) in [("2.1.0", Mode::Warm), ("2.0.0", Mode::Cold)] {
            let before = files.checked();
            site.upgrade(version, mode)?;
            wait::until("more files", PATIENCE, || {
                files.check()?;
                Ok(files.checked() > before + 2)
            })?;
        }
        context.fact(&format!("files_checked_on_{name}"), files.stop()?.checked);
        context.run(&["umount", "/mnt/data"])?;
        context.run(&[check, &[volume.device.as_str()]].concat())?;
        site.destroy("data")?;
    }
    site.leave()
}

pub fn partitions_lvm_and_encryption_lie_on_a_volume(context: &mut Context) -> Result<()> {
    let udev = Udev::start(context)?;
    let site = Site::on_guest("2.0.0")?;
    let targets = DISKS.map(Target::bdev);
    let volume = composed::create(&site, "data", stripe(64), &targets)?;
    let device = volume.device.as_str();

    context.step("partitions");
    fs::write("/tmp/table", "label: gpt\nsize=64M\nsize=32M\n")?;
    context.run(&["sh", "-c", &format!("sfdisk -q {device} < /tmp/table")])?;
    let (first, second) = (format!("{device}p1"), format!("{device}p2"));
    wait::until("the partitions are there", PATIENCE, || {
        Ok(Path::new(&first).exists() && Path::new(&second).exists())
    })?;
    let listed = context.run(&["lsblk", "-n", "-o", "NAME", device])?;
    ensure!(listed.contains("p1") && listed.contains("p2"), "{listed}");

    context.step("LVM on one, with dm-crypt on it, under load and upgrades");
    context.run(&["pvcreate", "-q", &first])?;
    context.run(&["vgcreate", "-q", "group", &first])?;
    context.run(&["lvcreate", "-q", "-n", "volume", "-L", "32M", "group"])?;
    fs::write("/tmp/key", [7; 64])?;
    let open = ["cryptsetup", "open", "--type=plain", "--key-file=/tmp/key", "--key-size=512"];
    let what = ["--cipher=aes-xts-plain64", "/dev/group/volume", "secret"];
    context.run(&[&open[..], &what[..]].concat())?;
    let shape = Shape { depth: 8, bytes: 8 << 20, verify: true };
    let secret = fs::canonicalize("/dev/mapper/secret")?;
    let load = Fio::start(&secret.to_string_lossy(), shape)?;
    for version in ["2.1.0", "2.0.0"] {
        let before = queue::stat(device)?.writes;
        site.upgrade(version, Mode::Warm)?;
        wait::until("more writes", PATIENCE, || Ok(queue::stat(device)?.writes > before + 50))?;
    }
    let done = load.stop()?;
    context.fact("verified_ios", done.ios);
    let busy = site.destroy("data").err().context("a volume in use was destroyed")?;
    context.fact("error_in_use", busy.to_string());

    context.run(&["cryptsetup", "close", "secret"])?;
    context.run(&["vgremove", "-q", "-f", "group"])?;
    site.destroy("data")?;
    udev.stop(context)?;
    site.leave()
}

pub fn a_volume_grows_under_a_mounted_file_system(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let all = DISKS.map(Target::bdev);
    let volume = composed::create(&site, "data", Layout::Linear, &all[..1])?;
    let device = volume.device.as_str();
    context.run(&["mkfs.ext4", "-q", device])?;
    fs::create_dir_all("/mnt/data")?;
    context.run(&["mount", device, "/mnt/data"])?;
    let mut files = Files::start("/mnt/data/files".as_ref())?;
    let sectors = |wanted: u64| -> Result<()> {
        let text = fs::read_to_string(sys(device, "size"))?;
        ensure!(text.trim().parse::<u64>()? << 9 == wanted, "{text} instead of {wanted} bytes");
        Ok(())
    };
    for count in 2..=3 {
        context.step(&format!("{count} disks"));
        let grown = composed::resize(&site, "data", Layout::Linear, &all[..count])?;
        ensure!(grown.bytes == count as u64 * volume.bytes, "{grown:?}");
        sectors(grown.bytes)?;
        context.run(&["resize2fs", device])?;
        files.check()?;
        site.upgrade(if count == 2 { "2.1.0" } else { "2.0.0" }, Mode::Warm)?;
        sectors(grown.bytes)?;
    }
    context.step("never smaller, and never otherwise");
    for (wanted, what) in [
        (all[..2].to_vec(), "fewer targets"),
        (vec![all[1].clone(), all[0].clone(), all[2].clone()], "another order"),
        (vec![all[0].clone().mib(8), all[1].clone(), all[2].clone()], "a smaller one"),
    ] {
        let refused = composed::try_resize(&site, "data", Layout::Linear, &wanted)?;
        let refusal = refused.err().with_context(|| format!("{what} was not refused"))?;
        ensure!(refusal.errno != 0 && !refusal.why.is_empty(), "{what}: {refusal:?}");
        sectors(3 * volume.bytes)?;
    }
    let checked = files.checked();
    wait::until("more files", PATIENCE, || {
        files.check()?;
        Ok(files.checked() > checked + 3)
    })?;
    context.fact("files_checked", files.stop()?.checked);
    context.run(&["umount", "/mnt/data"])?;
    context.run(&["e2fsck", "-f", "-n", device])?;
    site.leave()
}

pub fn an_error_of_a_disk_is_an_error_of_its_part_of_the_volume(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    context.run(&["modprobe", "dm_mod"])?;
    // From sector 16384 to 24576, 8 to 12 MiB, nothing can be read or written.
    let table = format!(
        "0 16384 linear {0} 0\n16384 8192 error\n24576 106496 linear {0} 24576\n",
        DISKS[0]
    );
    let bad = Mapped::create("bad", &table)?;
    let targets = [Target::bdev(bad.device()), Target::bdev(DISKS[1])];
    let volume = composed::create(&site, "data", Layout::Linear, &targets)?;
    let device = volume.device.as_str();
    queue::write_words(device, 2 * MIB, &[1; 16])?;
    for (version, expected) in [("2.1.0", 1), ("2.0.0", 2)] {
        let read = queue::read_words(device, 9 * MIB, 4);
        let error = format!("{:#}", read.err().context("a bad place was read")?);
        ensure!(error.contains("os error 5"), "{error}");
        let across = queue::write_words(device, 8 * MIB - 4, &[2; 8]);
        ensure!(across.is_err(), "a write was done that could not be done as a whole");
        ensure!(queue::read_words(device, 2 * MIB, 16)? == [Some(1); 16], "a good place is wrong");
        queue::write_words(device, 100 * MIB, &[3; 4])?;
        let views = composed::view(&site, "data")?.targets;
        let failures: Vec<_> = views.iter().map(|target| target.status.failures).collect();
        ensure!(failures[0] >= 2 * expected && failures[1] == 0, "{failures:?}");
        ensure!(views[0].remembered > 0 && views[1].remembered == 0, "{views:?}");
        context.step(&format!("the history goes along to {version}"));
        site.upgrade(version, Mode::Warm)?;
        let after = composed::view(&site, "data")?.targets;
        ensure!(after[0].status.failures == failures[0], "{after:?}");
        ensure!(after[0].remembered == views[0].remembered, "{after:?}");
    }
    site.destroy("data")?;
    bad.remove()?;
    site.leave()
}

pub fn a_volume_that_cannot_be_is_refused_with_the_target_and_nothing_is_left(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let ours = site.volume("ours", Spec::ram(16))?;
    fs::write("/tmp/no-disk", "")?;
    let held = spare::exclusive(DISKS[2])?;
    let bdev = Target::bdev;
    let cases: [Case<'_>; 8] = [
        (
            "a device that is not there",
            Layout::Linear,
            vec![bdev(DISKS[0]), bdev("/dev/none")],
            Some(1),
            Errno::ENOENT,
        ),
        ("a file", Layout::Linear, vec![bdev("/tmp/no-disk")], Some(0), Errno::ENOTBLK),
        (
            "a device in use",
            Layout::Linear,
            vec![bdev(DISKS[0]), bdev(DISKS[2])],
            Some(1),
            Errno::EBUSY,
        ),
        (
            "the same device twice",
            Layout::Linear,
            vec![bdev(DISKS[0]), bdev(DISKS[0])],
            Some(1),
            Errno::EBUSY,
        ),
        (
            "one that is too small",
            Layout::Linear,
            vec![bdev(DISKS[0]), bdev(DISKS[1]).mib(65)],
            Some(1),
            Errno::ENOSPC,
        ),
        (
            "an Atom device",
            Layout::Linear,
            vec![bdev(DISKS[0]), bdev(&ours)],
            Some(1),
            Errno::ELOOP,
        ),
        (
            "a stripe of unequal parts",
            stripe(64),
            vec![bdev(DISKS[0]).mib(8), bdev(DISKS[1]).mib(16)],
            None,
            Errno::EINVAL,
        ),
        (
            "a stripe of less than a chunk",
            stripe(1 << 20),
            vec![bdev(DISKS[0]), bdev(DISKS[1])],
            None,
            Errno::ENOSPC,
        ),
    ];
    for (what, layout, targets, target, errno) in cases {
        context.step(what);
        let made = composed::try_create(&site, "data", layout, &targets)?;
        let Refusal { errno: found, target: named, why } =
            made.err().with_context(|| format!("{what} was not refused"))?;
        ensure!(found == errno as u32, "{what}: error {found}, {why:?}");
        ensure!(target.is_none() || named == target, "{what}: about target {named:?}, {why:?}");
        ensure!(!why.is_empty(), "{what}: without a reason");
        for disk in [DISKS[0], DISKS[1]] {
            spare::exclusive(disk).with_context(|| format!("{what}: {disk} is still held"))?;
        }
        ensure!(!Path::new("/dev/atom1").exists(), "{what}: a device is left");
    }
    drop(held);
    context.step("then it can be");
    let preserved = {
        use atomctl::node::Node as _;
        site.node().status()?.preserved
    };
    composed::create(&site, "data", Layout::Linear, &DISKS.map(bdev))?;
    for disk in DISKS {
        ensure!(spare::exclusive(disk).is_err(), "{disk} is not held");
    }
    let twice = composed::try_create(&site, "data", Layout::Linear, &[bdev(DISKS[0])])?;
    ensure!(twice.is_err(), "two volumes of one name");
    site.destroy("data")?;
    let after = {
        use atomctl::node::Node as _;
        site.node().status()?.preserved
    };
    ensure!(after == preserved, "{after} preserved objects instead of {preserved}");
    site.leave()
}

fn sys(device: &str, file: &str) -> String {
    format!("/sys/block/{}/{file}", device.trim_start_matches("/dev/"))
}

/// The block layer makes long requests of writes that are submitted together. The disk gets as few of them.
fn merged_writes_stay_merged(context: &mut Context, site: &Site) -> Result<()> {
    context.step("merged writes");
    let [disk, ..] = DISKS;
    let volume = composed::create(site, "merged", Layout::Linear, &[Target::bdev(disk)])?;
    let below = queue::stat(disk)?.writes;
    let args = ["--rw=write", "--bs=128k", "--size=48m", "--iodepth=32", "--ioengine=libaio"];
    let together = ["--iodepth_batch_submit=16", "--iodepth_batch_complete_min=16"];
    // As many reads as writes: it verifies.
    let submitted = fio::pass(&volume.device, &[&args[..], &together].concat())?.ios / 2;
    let (above, below) = (queue::stat(&volume.device)?.writes, queue::stat(disk)?.writes - below);
    context.fact("writes_submitted_merged_and_below", [submitted, above, below]);
    ensure!(above * 2 <= submitted, "{submitted} writes became {above}: nothing was merged");
    ensure!(below <= above + above / 4 + 4, "{above} writes of the volume are {below} of its disk");
    site.destroy("merged")
}

pub fn long_writes_go_through_short_queues_and_are_split_again_below(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    merged_writes_stay_merged(context, &site)?;
    let targets = DISKS.map(Target::bdev);
    let volume = composed::create_of_depth(&site, "data", stripe(64), &targets, 2)?;
    // What is sent to a disk as one is split once more.
    for disk in DISKS {
        let name = disk.trim_start_matches("/dev/");
        fs::write(format!("/sys/block/{name}/queue/max_sectors_kb"), "16")?;
    }
    let mut verified = 0;
    for (depth, engine) in [("1", "psync"), ("16", "libaio")] {
        context.step(&format!("depth {depth}"));
        let depth = format!("--iodepth={depth}");
        let engine = format!("--ioengine={engine}");
        let args = ["--rw=write", "--bs=1m", "--size=96m", &depth, &engine];
        verified += fio::pass(&volume.device, &args)?.ios;
    }
    context.fact("verified_ios", verified);
    site.leave()
}

pub fn a_resize_that_runs_into_its_deadline_is_refused_as_a_whole(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let args = ["--filter=delay", "memory", "64M", "wdelay=20"];
    let slow = Server::nbdkit("slow", At::free_port()?, &args)?;
    let more = Server::nbdkit("more", At::free_port()?, &["memory", "64M"])?;
    let first = Target::nbd(slow.at(), "");
    let volume = composed::create(&site, "data", Layout::Linear, std::slice::from_ref(&first))?;
    let wanted = [first, Target::nbd(more.at(), ""), Target::bdev(DISKS[0])];
    let preserved = |site: &Site| -> Result<u32> {
        use atomctl::node::Node as _;
        Ok(site.node().status()?.preserved)
    };
    let before = preserved(&site)?;

    // The first open reads the partition table, which is not to be taken for the write.
    queue::read_words(&volume.device, 0, 1)?;
    context.step("a write takes longer than a resize may wait");
    let device = volume.device.clone();
    let writer = std::thread::spawn(move || queue::write_words(&device, 0, &[1]));
    wait::until("the write is owed", PATIENCE, || Ok(site.owed()? == 1))?;
    let refused = composed::try_resize(&site, "data", Layout::Linear, &wanted)?;
    let refusal = refused.err().context("it was resized")?;
    ensure!(refusal.errno == Errno::ETIMEDOUT as u32, "{refusal:?}");
    ensure!(!writer.is_finished(), "the write has ended before that");
    context.fact("said", refusal.why);
    ensure!(size_of(&volume.device)? == 64 << 20, "the device has another size");
    let view = composed::view(&site, "data")?;
    ensure!(view.targets.len() == 1, "{view:?}");
    spare::exclusive(DISKS[0]).context("the new disk is still held")?;
    wait::until("the new server is left", PATIENCE, || {
        let seen = more.seen()?;
        Ok(seen.connects > 0 && seen.disconnects == seen.connects)
    })?;
    ensure!(preserved(&site)? == before, "something is kept");

    context.step("it serves as before, and then it grows");
    wait::until("the write ends", PATIENCE, || Ok(writer.is_finished()))?;
    writer.join().map_err(|_| anyhow!("the writer panicked"))??;
    ensure!(queue::read_words(&volume.device, 0, 1)? == [Some(1)], "wrong data");
    let grown = composed::resize(&site, "data", Layout::Linear, &wanted)?;
    ensure!(grown.bytes == 192 << 20 && size_of(&volume.device)? == grown.bytes, "{grown:?}");
    queue::write_words(&volume.device, 40 * MIB * 2, &[2])?;
    queue::write_words(&volume.device, 130 * MIB, &[3])?;
    ensure!(queue::read_words(&volume.device, 130 * MIB, 1)? == [Some(3)], "wrong data");
    site.destroy("data")?;
    slow.stop()?;
    more.stop()?;
    site.leave()
}

/// Bytes of a device.
fn size_of(device: &str) -> Result<u64> {
    let name = device.trim_start_matches("/dev/");
    let text = fs::read_to_string(format!("/sys/block/{name}/size"))?;
    Ok(text.trim().parse::<u64>()? << 9)
}
