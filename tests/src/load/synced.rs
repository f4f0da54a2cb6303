// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Files that are synced, by writers that know what must be there after a power cut.
//!
//! Each writer has a few files and a log. In each round it writes a new file, syncs it, gives it the name of one of its
//! files and syncs the folder; then it appends a record to its log and syncs that. What, follows from the seed, so that
//! whoever knows the seed and the last round that was synced knows each file, and the log up to its record of that round.
//! The next round may be there in part: its file as a whole or not at all, and some of its record.
//!
//! Which round was the last is known from outside and from what there is. So each file begins
//! with its round.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context as _, Result};

use super::rounds::{last_ended, Rounds};
use crate::random::Random;

/// Files of each writer, besides its log.
const FILES: u64 = 16;
/// Bytes of the largest file, besides its round.
const MOST_BYTES: u64 = 48 << 10;
/// Bytes of a record. No multiple of a block, so that most records share one with the record before.
const RECORD: usize = 1000;

/// Starts `writers` in `folder`, which they make. After each round of a writer `synced` is called with its number and the
/// round.
pub fn start(
    folder: &Path,
    seed: u64,
    writers: u64,
    synced: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Rounds> {
    fs::create_dir_all(folder)?;
    // The folder itself has to outlive the power too.
    sync(folder.parent().context("a folder without a parent")?)?;
    let folder = folder.to_owned();
    let work = move |writer, round| {
        rewrite(&folder, seed, writer, round)?;
        append(&folder, seed, writer, round)
    };
    Rounds::start("synced", writers, work, synced)
}

/// Looks whether everything that `writers` have synced is in the folder: for each the last round that is known. Returns how
/// many files and records are of a round that was not synced.
pub fn verify(folder: &Path, seed: u64, synced: &[u64]) -> Result<u64> {
    let mut newer = 0;
    for (writer, told) in (0..).zip(synced.iter().copied()) {
        let last = last_ended(told, newest(folder, writer)?);
        for number in 0..FILES {
            let is_newer = verify_file(folder, seed, writer, number, last)
                .with_context(|| format!("file {number} of writer {writer}, last round {last}"))?;
            newer += u64::from(is_newer);
        }
        let is_newer = verify_log(folder, seed, writer, last)
            .with_context(|| format!("the log of writer {writer}, last round {last}"))?;
        newer += u64::from(is_newer);
    }
    Ok(newer)
}

/// The newest round of which there is something.
fn newest(folder: &Path, writer: u64) -> Result<Option<u64>> {
    let mut newest = None;
    for number in 0..FILES {
        if let Some(found) = read(&file_of(folder, writer, number))? {
            // One that is shorter is wrong, and will be found to be.
            let round = found.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            newest = newest.max(round);
        }
    }
    let bytes = read(&log_of(folder, writer))?.map_or(0, |log| log.len());
    let records = bytes.div_ceil(RECORD) as u64;
    Ok(newest.max(records.checked_sub(1)))
}

/// What a file has, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn rewrite(folder: &Path, seed: u64, writer: u64, round: u64) -> Result<()> {
    let new = folder.join(format!("{writer}-new"));
    let mut file = File::create(&new)?;
    file.write_all(&content(seed, writer, round))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, file_of(folder, writer, round % FILES))?;
    sync(folder)
}

fn append(folder: &Path, seed: u64, writer: u64, round: u64) -> Result<()> {
    let mut log = File::options().create(true).append(true).open(log_of(folder, writer))?;
    log.write_all(&record(seed, writer, round))?;
    log.sync_data()?;
    // The first record is in a file whose name is new.
    if round == 0 {
        sync(folder)?;
    }
    Ok(())
}

/// Whether the file is of the round after the last.
fn verify_file(folder: &Path, seed: u64, writer: u64, number: u64, last: u64) -> Result<bool> {
    // The last round that wrote this file; none has when there were too few.
    let oldest = last.checked_sub(number).map(|since| last - since % FILES);
    let next = (last + 1) % FILES == number;
    let found = read(&file_of(folder, writer, number))?;
    let is = |round| found.as_ref() == Some(&content(seed, writer, round));
    match oldest {
        Some(round) if is(round) => return Ok(false),
        None if found.is_none() => return Ok(false),
        _ => {}
    }
    ensure!(
        next && is(last + 1),
        "round {oldest:?} of it was synced, and it is neither of that one nor a newer one: {:?} bytes",
        found.map(|bytes| bytes.len())
    );
    Ok(true)
}

/// Whether the log has something of the round after the last.
fn verify_log(folder: &Path, seed: u64, writer: u64, last: u64) -> Result<bool> {
    let found = read(&log_of(folder, writer))?.context("there is none")?;
    let records = last as usize + 1;
    let bytes = records * RECORD;
    ensure!(found.len() >= bytes, "{} bytes of {bytes} that were synced", found.len());
    ensure!(found.len() <= bytes + RECORD, "{} bytes of at most {}", found.len(), bytes + RECORD);
    for (round, record_found) in (0..=last).zip(found.chunks_exact(RECORD)) {
        ensure!(record_found == record(seed, writer, round), "record {round} is wrong");
    }
    Ok(found.len() > bytes)
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)?.sync_all().with_context(|| format!("cannot sync {}", folder.display()))
}

fn file_of(folder: &Path, writer: u64, number: u64) -> PathBuf {
    folder.join(format!("{writer}-{number}"))
}

fn log_of(folder: &Path, writer: u64) -> PathBuf {
    folder.join(format!("{writer}-log"))
}

/// What a file has: different for each writer and round, of a length that changes.
fn content(seed: u64, writer: u64, round: u64) -> Vec<u8> {
    let mut random = Random::mixed(&[seed, writer, round]);
    let bytes = random.below(MOST_BYTES) as usize;
    [round.to_le_bytes().to_vec(), filled(random, bytes)].concat()
}

fn record(seed: u64, writer: u64, round: u64) -> Vec<u8> {
    filled(Random::mixed(&[seed, writer, round, 1]), RECORD)
}

fn filled(mut random: Random, bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        content.extend_from_slice(&random.number().to_le_bytes());
    }
    content.truncate(bytes);
    content
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait;

    const SEED: u64 = 7;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("atom-synced-{name}-{}", std::process::id()))
    }

    /// Rounds up to `last` of one writer.
    fn written(name: &str, last: u64) -> PathBuf {
        let folder = folder(name);
        fs::create_dir_all(&folder).expect("a temporary folder");
        for round in 0..=last {
            rewrite(&folder, SEED, 0, round).expect("a file");
            append(&folder, SEED, 0, round).expect("a record");
        }
        folder
    }

    #[test]
    fn what_writers_have_synced_is_found() {
        let folder = folder("writers");
        let mut rounds = start(&folder, SEED, 2, |_, _| {}).expect("writers");
        wait::until("rounds", Duration::from_secs(60), || {
            rounds.check()?;
            Ok(rounds.fewest() > FILES + 3)
        })
        .expect("rounds");
        let synced = rounds.stop().expect("stopped");
        assert_eq!(verify(&folder, SEED, &synced).expect("all is there"), 0);
        assert!(verify(&folder, SEED + 1, &synced).is_err());
        let _ = fs::remove_dir_all(&folder);
    }

    #[test]
    fn each_number_of_rounds_is_right_and_one_round_more_is_newer() {
        for last in [0, 1, FILES - 2, FILES - 1, FILES, FILES + 1, 3 * FILES + 5] {
            let folder = written("counts", last);
            assert_eq!(verify(&folder, SEED, &[last]).expect("all is there"), 0);
            if let Some(before) = last.checked_sub(1) {
                assert_eq!(verify(&folder, SEED, &[before]).expect("newer"), 2);
            }
            // More rounds may have been synced than anybody was told of, and then all of it is there.
            if let Some(before) = last.checked_sub(3) {
                assert_eq!(verify(&folder, SEED, &[before]).expect("newer"), 2);
                fs::remove_file(file_of(&folder, 0, (last - 1) % FILES)).expect("removed");
                assert!(verify(&folder, SEED, &[before]).is_err());
                rewrite(&folder, SEED, 0, last - 1).expect("as it was");
            }
            assert!(verify(&folder, SEED, &[last + 1]).is_err());
            let _ = fs::remove_dir_all(&folder);
        }
    }

    #[test]
    fn an_older_file_a_torn_one_a_missing_one_and_a_short_log_are_not_passed_over() {
        let last = FILES + 4;
        let folder = written("wrong", last);
        let file = file_of(&folder, 0, 4);
        let right = fs::read(&file).expect("the file");
        let mut torn = right.clone();
        torn.pop();
        for wrong in [content(SEED, 0, 4), content(SEED, 0, last + 1), torn, Vec::new()] {
            fs::write(&file, wrong).expect("written");
            assert!(verify(&folder, SEED, &[last]).is_err());
        }
        fs::remove_file(&file).expect("removed");
        assert!(verify(&folder, SEED, &[last]).is_err());
        fs::write(&file, right).expect("written");
        assert_eq!(verify(&folder, SEED, &[last]).ok(), Some(0));
        let log = log_of(&folder, 0);
        let mut records = fs::read(&log).expect("the log");
        records.pop();
        fs::write(&log, &records).expect("written");
        assert!(verify(&folder, SEED, &[last]).is_err());
        records.push(0);
        fs::write(&log, &records).expect("written");
        assert!(verify(&folder, SEED, &[last]).is_err());
        let _ = fs::remove_dir_all(&folder);
    }
}
