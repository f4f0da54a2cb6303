// SPDX-License-Identifier: GPL-2.0

//! A module that is broken on purpose, in the way that its parameter names. Each way is one that a detector of a debug
//! kernel exists for, and is done while the module is inserted. Scenarios insert it into a machine that nobody needs any
//! more, and see whether the detector is alive.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use kernel::prelude::*;
use kernel::sync::{new_mutex, new_spinlock, Arc, Mutex, SpinLock};
use kernel::{bindings, static_lock_class, workqueue};

module! {
    type: Broken,
    name: "broken",
    authors: ["The Atom authors"],
    description: "Is broken on purpose, for tests of the detectors",
    license: "GPL",
    params: {
        how: i64 {
            default: 0,
            description: "The defect, see broken_main.rs",
        },
    },
}

struct Broken;

impl kernel::Module for Broken {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match *module_parameters::how.value() {
            1 => uses_freed_memory()?,
            2 => writes_beyond_the_end()?,
            3 => locks_in_both_orders()?,
            4 => sleeps_with_a_spinlock()?,
            5 => leaks()?,
            6 => frees_an_armed_timer()?,
            7 => races()?,
            _ => return Err(EINVAL),
        }
        Ok(Self)
    }
}

/// KASAN.
#[inline(never)]
fn uses_freed_memory() -> Result {
    let memory = KBox::into_raw(KBox::new([1u64; 8], GFP_KERNEL)?);
    // SAFETY: It was a box a moment ago.
    drop(unsafe { KBox::from_raw(memory) });
    // SAFETY: None; this is the defect. KASAN keeps what was freed for a while, so that nobody else has it.
    let seen = unsafe { ptr::read_volatile(memory.cast::<u64>()) };
    pr_info!("freed memory has {seen}\n");
    Ok(())
}

/// KASAN.
#[inline(never)]
fn writes_beyond_the_end() -> Result {
    let memory = KBox::into_raw(KBox::new([1u8; 52], GFP_KERNEL)?);
    // SAFETY: None; this is the defect. The allocator's object is 64 bytes long, so nobody else has this byte.
    unsafe { ptr::write_volatile(memory.cast::<u8>().wrapping_add(52), 2) };
    // SAFETY: It was a box a moment ago.
    drop(unsafe { KBox::from_raw(memory) });
    Ok(())
}

#[pin_data]
struct Locks {
    #[pin]
    first: Mutex<u32>,
    #[pin]
    second: Mutex<u32>,
    #[pin]
    spin: SpinLock<u32>,
}

impl Locks {
    fn new() -> Result<Arc<Self>> {
        let locks = pin_init!(Self {
            first <- new_mutex!(0, "broken_first"),
            second <- new_mutex!(0, "broken_second"),
            spin <- new_spinlock!(0, "broken_spin"),
        });
        Arc::pin_init(locks, GFP_KERNEL)
    }
}

/// Lockdep.
#[inline(never)]
fn locks_in_both_orders() -> Result {
    let locks = Locks::new()?;
    {
        let mut first = locks.first.lock();
        *first += *locks.second.lock();
    }
    let mut second = locks.second.lock();
    *second += *locks.first.lock();
    Ok(())
}

/// DEBUG_ATOMIC_SLEEP.
#[inline(never)]
fn sleeps_with_a_spinlock() -> Result {
    let locks = Locks::new()?;
    let mut spin = locks.spin.lock();
    // Nobody holds it, so nobody really sleeps.
    *spin += *locks.first.lock();
    Ok(())
}

/// Kmemleak. It looks at stacks and at the allocator's lists too, where some addresses may stay by chance.
#[inline(never)]
fn leaks() -> Result {
    for number in 0..128 {
        let _ = KBox::into_raw(KBox::new([number as u64; 24], GFP_KERNEL)?);
    }
    Ok(())
}

/// DEBUG_OBJECTS.
#[inline(never)]
fn frees_an_armed_timer() -> Result {
    unsafe extern "C" fn nothing(_timer: *mut bindings::timer_list) {}

    let timer = KBox::into_raw(KBox::new(bindings::timer_list::default(), GFP_KERNEL)?);
    let (name, key) = (c"broken_timer", static_lock_class!());
    // SAFETY: The timer is nobody's yet; name and key live as long as the module.
    unsafe {
        bindings::timer_init_key(timer, Some(nothing), 0, name.as_ptr().cast(), key.as_ptr())
    };
    // SAFETY: It was initialised. It would end in an hour.
    unsafe { bindings::mod_timer(timer, bindings::jiffies + 3600 * bindings::HZ as usize) };
    // SAFETY: None; this is the defect. The detector disarms the timer.
    drop(unsafe { KBox::from_raw(timer) });
    Ok(())
}

/// A word that two processors write as if they were alone.
struct Raced(UnsafeCell<u64>);
// SAFETY: None; this is the defect.
unsafe impl Sync for Raced {}

static RACED: Raced = Raced(UnsafeCell::new(0));
static RUNNING: AtomicU32 = AtomicU32::new(0);

#[inline(never)]
fn race() {
    for _ in 0..2_000_000u32 {
        // SAFETY: None; this is the defect.
        unsafe { *RACED.0.get() = (*RACED.0.get()).wrapping_add(3) };
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
}

/// KCSAN.
#[inline(never)]
fn races() -> Result {
    RUNNING.store(1, Ordering::Relaxed);
    let other = || {
        race();
        RUNNING.store(0, Ordering::Release);
    };
    workqueue::system_unbound().try_spawn(GFP_KERNEL, other)?;
    while RUNNING.load(Ordering::Acquire) != 0 {
        race();
    }
    Ok(())
}
