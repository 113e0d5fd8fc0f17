//! How much memory and processor time something takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Bytes that Rust code has allocated.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most of them since [`within`] began.
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[allow(unsafe_code, reason = "an allocator is")]
// SAFETY: everything is the system's; only lengths are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Panics when it takes more of either.
pub fn within(memory: usize, time: Duration, run: impl FnOnce()) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let began = processor_time();
    run();
    let took = processor_time() - began;
    let peak = PEAK.load(Relaxed).saturating_sub(before);
    assert!(peak <= memory, "it took {peak} bytes; {memory} are allowed");
    assert!(took <= time, "it took {took:?}; {time:?} is allowed");
}

/// Of this thread, whatever else the machine does.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[allow(unsafe_code, reason = "a call of libc's")]
    // SAFETY: the pointer is to a timespec of ours.
    let said = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(said, 0, "every thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
