//! Bits in deflate's order: the first bit of a code goes to the lowest free bit (RFC 1951 section 3.1.1).

/// Writes bits to a buffer that its owner has made large enough.
pub struct BitWriter<'a> {
    buffer: &'a mut [u8],
    position: usize,
    bits: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Starts at the first byte of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, position: 0, bits: 0, count: 0 }
    }

    /// Takes `count` bits. At most 56 bits may come between two calls of [`Self::flush`].
    #[inline(always)]
    pub fn put(&mut self, bits: u64, count: u32) {
        self.bits |= bits << self.count;
        self.count += count;
    }

    /// Lets `write` go on with a writer whose state no store into the buffer can change, so that it stays in registers.
    #[inline(always)]
    pub fn locally(&mut self, write: impl FnOnce(&mut BitWriter<'_>)) {
        let mut local = BitWriter { buffer: self.buffer, position: self.position, bits: self.bits, count: self.count };
        write(&mut local);
        (self.position, self.bits, self.count) = (local.position, local.bits, local.count);
    }

    /// Writes all whole bytes; fewer than eight bits stay.
    #[inline(always)]
    pub fn flush(&mut self) {
        if let Some(room) = self.buffer[self.position..].first_chunk_mut() {
            *room = self.bits.to_le_bytes();
        }
        self.position += (self.count >> 3) as usize;
        self.bits >>= self.count & !7;
        self.count &= 7;
    }

    /// Fills the last byte with zeros.
    pub fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }

    /// Copies whole bytes; only after [`Self::align`].
    pub fn copy(&mut self, bytes: &[u8]) {
        self.buffer[self.position..self.position + bytes.len()].copy_from_slice(bytes);
        self.position += bytes.len();
    }

    /// Returns the bytes that are complete.
    pub fn position(&self) -> usize {
        self.position
    }
}
