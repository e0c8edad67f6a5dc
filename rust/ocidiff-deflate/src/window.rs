//! The bytes that an encoder looks at: a block and the dictionary before it.

/// Room for dictionary and block; a power of two, so that a masked index needs no check.
pub const WINDOW_BYTES: usize = 1 << 19;
/// The farthest that a match may be away (RFC 1951 section 2): more dictionary than this is of no use.
pub const DICTIONARY_BYTES: usize = 32 << 10;
/// Bytes behind the window that a load may read.
const MARGIN_BYTES: usize = 32;

/// Dictionary and block, from index 0 on. What stands behind the block has no part in any result.
pub type Window = [u8; WINDOW_BYTES + MARGIN_BYTES];

/// Returns `N` bytes at `at`, which wraps around; at most as many as stand behind the window.
#[inline(always)]
pub fn load<const N: usize>(window: &Window, at: usize) -> &[u8; N] {
    const { assert!(N <= MARGIN_BYTES) };
    window[at & (WINDOW_BYTES - 1)..].first_chunk().unwrap_or(&[0; N])
}

/// Returns eight bytes at `at`, which wraps around.
#[inline(always)]
pub fn load8(window: &Window, at: usize) -> u64 {
    u64::from_le_bytes(*load(window, at))
}
