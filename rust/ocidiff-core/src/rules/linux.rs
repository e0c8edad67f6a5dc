//! Limits of numbers and names in Linux.

/// The largest id. The next one means "leave it" to chown.
pub const MAX_ID: u32 = u32::MAX - 1;
/// The largest major number of a device (linux/kdev_t.h).
pub const MAX_MAJOR: u32 = (1 << 12) - 1;
/// The largest minor number of a device.
pub const MAX_MINOR: u32 = (1 << 20) - 1;
/// The bits of a mode that chmod sets.
pub const MODE_BITS: u32 = 0o7777;
/// The longest name in a directory (linux/limits.h).
pub const MAX_NAME_BYTES: usize = 255;
