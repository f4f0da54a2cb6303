// SPDX-License-Identifier: GPL-2.0

//! A test variant whose fault is chosen when it is loaded, by parameters of the module:
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `fault_step` | the operation: a [`Step`], or 12 for *queue_rq*; 0: none |
//! | `fault_kind` | 1: it returns the errno `fault_value`; 2: it sleeps `fault_value` milliseconds first; 3: it reads from address zero; 4: *suspend* says that `fault_value` pieces of background work are left |
//! | `fault_value` | see above; for 3: 0 for before the table of volumes is locked, 1 for after it |
//! | `fault_times` | only the first so many times; 0: always |
//!
//! *queue_rq* returns a status and not an errno, holds no lock, and does not sleep. *image_bytes* has no
//! errno: it returns a bound that no image can have. An inverse does its work before it returns the errno.

use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::time::{delay::fsleep, Delta};

use crate::fault::{Points, Step};
use crate::module_parameters::{fault_kind, fault_step, fault_times, fault_value};

const QUEUE_RQ: i64 = 12;

const ERRNO: i64 = 1;
const SLEEP: i64 = 2;
const OOPS: i64 = 3;
const LEFT: i64 = 4;

/// How often the fault has struck.
static STRUCK: AtomicU64 = AtomicU64::new(0);

/// True when the fault is of that kind, in that operation, and strikes once more.
fn strikes(step: i64, kind: i64) -> bool {
    let chosen = *fault_step.value() == step && *fault_kind.value() == kind;
    chosen && {
        let times = u64::try_from(*fault_times.value()).unwrap_or(0);
        let again = |struck: u64| (times == 0 || struck < times).then(|| struck.saturating_add(1));
        STRUCK.fetch_update(Ordering::Relaxed, Ordering::Relaxed, again).is_ok()
    }
}

fn value<T: TryFrom<i64> + Default>() -> T {
    T::try_from(*fault_value.value()).unwrap_or_default()
}

pub(crate) struct Injected;

impl Points for Injected {
    fn before(step: Step) -> Result {
        let step = step as i64;
        if strikes(step, SLEEP) {
            fsleep(Delta::from_millis(*fault_value.value()));
        }
        if *fault_value.value() == 0 && strikes(step, OOPS) {
            atom_payload_oops();
        }
        if strikes(step, ERRNO) {
            return Err(Error::from_errno(value::<i32>().saturating_neg()));
        }
        Ok(())
    }

    fn holding(step: Step) {
        if *fault_value.value() != 0 && strikes(step as i64, OOPS) {
            atom_payload_oops();
        }
    }

    fn background() -> i32 {
        if strikes(Step::Suspend as i64, LEFT) {
            return value();
        }
        0
    }

    fn refuses() -> Option<u32> {
        if strikes(QUEUE_RQ, OOPS) {
            atom_payload_oops();
        }
        strikes(QUEUE_RQ, ERRNO).then(value)
    }
}

/// An address in the first page, where nothing is. Not zero: a kernel with Rust's debug assertions would panic elsewhere.
const NOWHERE: usize = 8;

/// Reads from there. The kernel log names this function, and the task that runs it ends.
#[no_mangle]
#[inline(never)]
extern "C" fn atom_payload_oops() {
    // SAFETY: None. This is the fault.
    black_box(unsafe { ptr::read_volatile(black_box(NOWHERE as *const u8)) });
}
