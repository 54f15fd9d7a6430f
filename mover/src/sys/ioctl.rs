//! Device and inode controls that `rustix` has no wrapper for.

#![expect(unsafe_code, reason = "the kernel takes raw pointers here; each call states why it holds")]

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, NoArg, Opcode, Setter, opcode};

// linux/fs.h: `_IO(0x12, 94)` and `_IO(0x12, 127)`.

const BLKROGET: Opcode = opcode::none(0x12, 94);
const BLKZEROOUT: Opcode = opcode::none(0x12, 127);
const BLKFLSBUF: Opcode = opcode::none(0x12, 97);

/// Whether the kernel refuses writes to this block device.
pub fn is_read_only_device(device: impl AsFd) -> io::Result<bool> {
    // SAFETY: BLKROGET stores one C int at the pointer, which is what `Getter` provides room for.
    let value = unsafe { rustix::ioctl::ioctl(device, Getter::<BLKROGET, std::ffi::c_int>::new())? };
    Ok(value != 0)
}

/// Makes `length` bytes from `offset` of a block device read as zeros, by the fastest way the device knows.
pub fn zero_device_range(device: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64 (start and length in bytes) from the pointer and stores nothing.
    unsafe { rustix::ioctl::ioctl(device, Setter::<BLKZEROOUT, [u64; 2]>::new([offset, length]))? };
    Ok(())
}

/// Writes back and drops the cached pages of a block device, so that the next read asks the device.
pub fn drop_device_cache(device: impl AsFd) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument and touches no memory of the caller.
    unsafe { rustix::ioctl::ioctl(device, NoArg::<BLKFLSBUF>::new())? };
    Ok(())
}
