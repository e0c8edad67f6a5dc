//! Bits of a stream, in deflate's order: the first bit of a byte is its lowest (RFC 1951 section 3.1.1).

use std::io::{BufRead, ErrorKind, Result};

/// Bits that were taken from the input and are not used yet, the next one lowest. All bits above `count` are zero.
#[derive(Default)]
pub(super) struct Bits {
    pub hold: u64,
    pub count: u32,
}

impl Bits {
    /// Holds `count` bits (at most 32) or more.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] if the input ends before; what the input says.
    pub fn need(&mut self, count: u32, input: &mut impl BufRead) -> Result<()> {
        while self.count < count {
            let Some(&byte) = filled(input)?.first() else { return Err(ErrorKind::UnexpectedEof.into()) };
            input.consume(1);
            self.hold |= u64::from(byte) << self.count;
            self.count += 8;
        }
        Ok(())
    }

    /// Takes `count` bits (at most 32); errors as in [`Self::need`].
    pub fn take(&mut self, count: u32, input: &mut impl BufRead) -> Result<u32> {
        self.need(count, input)?;
        let bits = (self.hold & ((1 << count) - 1)) as u32;
        self.skip(count);
        Ok(bits)
    }

    /// Takes bits that are held.
    pub fn skip(&mut self, count: u32) {
        self.hold >>= count;
        self.count -= count;
    }

    /// Skips the rest of a byte.
    pub fn align(&mut self) {
        self.skip(self.count % 8);
    }
}

/// Returns the bytes that the input has; none at its end.
pub(super) fn filled(input: &mut impl BufRead) -> Result<&[u8]> {
    while let Err(error) = input.fill_buf() {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    input.fill_buf()
}
