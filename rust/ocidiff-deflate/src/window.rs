//! The bytes that an encoder looks at: a block and the dictionary before it.

/// Room for dictionary and block; a power of two, so that a masked index needs no check.
pub const WINDOW_BYTES: usize = 1 << 19;
/// The farthest that a match may be away (RFC 1951 section 2): more dictionary than this is of no use.
pub const DICTIONARY_BYTES: usize = 32 << 10;
/// Bytes behind the window that loads of eight bytes may read.
const MARGIN_BYTES: usize = 8;

/// Dictionary and block, from index 0 on. What stands behind the block has no part in any result.
pub type Window = [u8; WINDOW_BYTES + MARGIN_BYTES];

/// Returns eight bytes at `at`, which wraps around.
#[inline(always)]
pub fn load8(window: &Window, at: usize) -> u64 {
    let at = at & (WINDOW_BYTES - 1);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&window[at..at + 8]);
    u64::from_le_bytes(bytes)
}
