//! How the C library's allocator deals with memory that was freed.

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
