// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Failpoints in the kernel: the file `failpoints` in the module's folder of debugfs, and carrying out a fault.

use core::hint::black_box;
use core::ptr;

use kernel::bindings;
use kernel::debugfs::{Dir, File};
use kernel::fmt;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;
use kernel::time::{delay::fsleep, Delta};
use kernel::uaccess::UserSliceReader;

use super::fault::{spoil, Kind};
use super::line::{carry_out, Refused, MAX_BYTES};
use super::point::{Failpoint, Hit};

/// The folder: the name of the module, which the build hands over.
const FOLDER: &[u8] = concat!(env!("FAILPOINTS_OF"), "\0").as_bytes();

/// One line is carried out at a time.
#[pin_data]
struct Table {
    points: &'static [&'static Failpoint],
    #[pin]
    writer: Mutex<()>,
}

/// The points of the module can be set as long as this exists.
pub(crate) struct Shown {
    points: &'static [&'static Failpoint],
    file: Option<Pin<KBox<File<Table>>>>,
}

impl Shown {
    /// Makes the file. Sleeps.
    pub(crate) fn begin(points: &'static [&'static Failpoint]) -> Result<Self> {
        let folder = Dir::new(CStr::from_bytes_with_nul(FOLDER).map_err(|_| EINVAL)?);
        let table = pin_init!(Table { points, writer <- new_mutex!(()) });
        let file = KBox::pin_init(
            folder.read_write_callback_file(c"failpoints", table, &read, &write),
            GFP_KERNEL,
        )?;
        Ok(Self { points, file: Some(file) })
    }
}

impl Drop for Shown {
    /// Whoever hangs goes on, and has left the points when this returns. Sleeps.
    fn drop(&mut self) {
        // First, so that no point is armed any more.
        drop(self.file.take());
        for point in self.points {
            point.disarm();
            while point.waiting() != 0 {
                moment();
            }
        }
    }
}

fn read(table: &Table, f: &mut fmt::Formatter<'_>) -> core::fmt::Result {
    table.points.iter().try_for_each(|point| {
        core::fmt::Display::fmt(*point, f)?;
        f.write_str("\n")
    })
}

fn write(table: &Table, reader: &mut UserSliceReader) -> Result {
    let mut line = [0u8; MAX_BYTES];
    let line = line.get_mut(..reader.len()).ok_or(EINVAL)?;
    reader.read_slice(line)?;
    let _one = table.writer.lock();
    carry_out(table.points, line).map_err(|refused| match refused {
        Refused::Invalid => EINVAL,
        Refused::Unknown => ENOENT,
        Refused::Impossible => Error::from_errno(-(bindings::EOPNOTSUPP as i32)),
    })
}

/// Sleeps for a moment.
fn moment() {
    fsleep(Delta::from_millis(1));
}

impl Failpoint {
    /// Comes to the point: what it is armed with happens. The context is one in which each of its kinds may happen.
    #[inline]
    pub(crate) fn meet(&self) -> Result {
        self.meet_with(&mut [])
    }

    /// The same with data that it can spoil.
    #[inline]
    pub(crate) fn meet_with(&self, data: &mut [u8]) -> Result {
        match self.pass() {
            None => Ok(()),
            Some(hit) => self.strike(&hit, data),
        }
    }

    /// The same where nothing can fail: it can only be slow or hang.
    #[allow(dead_code, reason = "not every module has such a point")]
    #[inline]
    pub(crate) fn slow_down(&self) {
        // It has no other kinds there.
        let _ = self.meet();
    }

    #[cold]
    fn strike(&self, hit: &Hit, data: &mut [u8]) -> Result {
        match hit.fault.kind {
            // No larger than `fault::MAX_ERRNO`.
            Kind::Error => return Err(Error::from_errno(-(hit.fault.argument as i32))),
            Kind::NoMemory => return Err(ENOMEM),
            Kind::Delay => fsleep(Delta::from_millis(hit.fault.argument.into())),
            Kind::Hang => self.hang(hit, moment),
            Kind::Data => spoil(data, hit.fault.argument),
            Kind::Oops => atom_failpoint_oops(),
        }
        Ok(())
    }
}

/// An address in the first page, where nothing is. Not zero: a kernel with Rust's debug assertions would panic elsewhere.
const NOWHERE: usize = 8;

/// Reads from there. The kernel log names this function, and the task that runs it ends.
#[no_mangle]
#[inline(never)]
extern "C" fn atom_failpoint_oops() {
    // SAFETY: None. This is the fault.
    black_box(unsafe { ptr::read_volatile(black_box(NOWHERE as *const u8)) });
}
