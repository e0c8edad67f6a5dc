//! sha256 in its OCI spelling, computed while bytes pass.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};

use crate::cause::Cause;
use crate::error::Error;

/// A sha256 digest; shown as `sha256:<hex>` (image-spec descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the hash itself.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Usage(Cause::NotDigest { text: text.escape_debug().to_string() });
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if hex.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Ok(c - b'0'),
                b'a'..=b'f' => Ok(c - b'a' + 10),
                _ => Err(wrong()),
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// Bytes that are hashed while the next ones come nearer: as many cache lines as a core waits for at a time.
const STRIDE: usize = 16 * CACHE_LINE;
const CACHE_LINE: usize = 64;

/// Hashes and counts. The one place that knows which implementation of sha256 is used.
#[derive(Clone)]
pub struct Hasher {
    sha256: Context,
    size: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { sha256: Context::new(&SHA256), size: 0 }
    }
}

impl Hasher {
    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        #[cfg(test)]
        by_thread::add(bytes.len() as u64);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(STRIDE));
            prefetch(&later[..later.len().min(STRIDE)]);
            self.sha256.update(now);
            rest = later;
        }
        self.size += bytes.len() as u64;
    }

    /// Returns the number of bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the digest of all bytes, and how many there were.
    pub fn finish(self) -> (Digest, u64) {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.sha256.finish().as_ref());
        (Digest(bytes), self.size)
    }
}

/// Asks for bytes that another core may have written: waiting for each cache line takes half as long as hashing it.
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing; SSE is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Counts the bytes that each thread hashed, for the tests of the pipelines.
#[cfg(test)]
pub(crate) mod by_thread {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::thread::{self, ThreadId};

    static BYTES: LazyLock<Mutex<HashMap<ThreadId, u64>>> = LazyLock::new(Mutex::default);

    /// Counts bytes for this thread.
    pub fn add(count: u64) {
        *BYTES.lock().unwrap_or_else(PoisonError::into_inner).entry(thread::current().id()).or_default() += count;
    }

    /// Returns how many bytes a thread hashed.
    pub fn of(thread: ThreadId) -> u64 {
        BYTES.lock().unwrap_or_else(PoisonError::into_inner).get(&thread).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_shows() {
        let (digest, size) = Hasher::default().finish();
        assert_eq!(size, 0);
        assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn pieces_of_any_length_give_one_digest() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number.wrapping_mul(7919) >> 5) as u8).collect();
        let of = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut hasher = Hasher::default();
            pieces.for_each(|piece| hasher.update(piece));
            hasher.finish()
        };
        let whole = of(&mut [&bytes[..]].into_iter());
        assert_eq!(whole.0.to_string(), "sha256:f68f73642ae0865bffc18f5f4129325842d02ede2d6670060661050c1c454006");
        for length in [1, 63, 64, 65, STRIDE - 1, STRIDE, STRIDE + 1, 2 * STRIDE + 7, 65_536] {
            assert_eq!(of(&mut bytes.chunks(length)), whole, "pieces of {length}");
        }
    }

    #[test]
    fn a_digest_that_could_become_a_path_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in ["sha256:../../x", "md5:00", hex, &format!("sha256:{}", hex.to_uppercase()), &format!("sha256:{hex}0")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
