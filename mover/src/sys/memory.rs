//! How the C library's allocator deals with memory that was freed, and how the kernel backs what is large.

use std::mem::MaybeUninit;

/// Keeps freed buffers for the next use, up to a bound. Frames, segments and ranges come and go by the megabyte; by
/// default each is a mapping of its own, and faulting its pages in costs more than what is done with them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
pub fn keep_freed_buffers() {
    const MIB: i32 = 1 << 20;
    let settings = [
        // The largest value that glibc takes: buffers up to here come from the heap.
        (libc::M_MMAP_THRESHOLD, 32 * MIB),
        // What stays at the top of each heap; with the arenas below it bounds what is kept.
        (libc::M_TRIM_THRESHOLD, 64 * MIB),
        // One heap for a thread that works, two for those that wait.
        (libc::M_ARENA_MAX, 4),
    ];
    for (parameter, value) in settings {
        // SAFETY: mallopt takes two integers, touches nothing but the allocator's settings under its own lock, and
        // answers 0 for what it does not take, which leaves the default in place.
        let _taken = unsafe { libc::mallopt(parameter, value) };
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_buffers() {}

/// Bytes from which huge pages are worth asking for: a few of the usual size.
const HUGE_FROM_BYTES: usize = 8 << 20;
/// Bytes of a page, or of more than one where pages are larger: what advice must be aligned to.
const PAGE_BYTES: usize = 64 << 10;

/// Asks for huge pages behind room that is about to be filled: to fault in 64 MiB by 4 KiB takes tens of milliseconds.
/// Advice only: where it is not followed, nothing changes.
#[expect(unsafe_code, reason = "madvise takes addresses")]
pub fn expect_filling<T>(room: &mut [MaybeUninit<T>]) {
    let (start, length) = (room.as_mut_ptr().cast::<u8>(), size_of_val(room));
    let skipped = start.align_offset(PAGE_BYTES).min(length);
    let whole = (length - skipped) / PAGE_BYTES * PAGE_BYTES;
    if whole < HUGE_FROM_BYTES {
        return;
    }
    // SAFETY: the range is a part of `room`, which is borrowed for writing, and this advice changes how the kernel backs
    // the range, not what is in it.
    let _taken =
        unsafe { rustix::mm::madvise(start.add(skipped).cast(), whole, rustix::mm::Advice::LinuxHugepage) };
}
