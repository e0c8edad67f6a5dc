//! Gzip members one after another, read as one stream. Spec: RFC 1952.

use std::io::{self, BufRead, ErrorKind};

use ocidiff_deflate::{Inflated, Inflater, Pause};
use zlib_rs::crc32::crc32;

const MAGIC: u32 = 0x8b1f;
const DEFLATE: u32 = 8;
/// Flags of a header.
const HAS_HEADER_SUM: u32 = 1 << 1;
const HAS_EXTRA: u32 = 1 << 2;
const HAS_NAME: u32 = 1 << 3;
const HAS_COMMENT: u32 = 1 << 4;
const RESERVED: u32 = 0xe0;

/// Reads a blob of gzip members. Fields of headers may have any length and take no memory.
pub(super) struct GzipReader<B> {
    blob: B,
    inflater: Inflater,
    /// CRC-32 and length of the content of the member that is being read; none between members.
    member: Option<(u32, u32)>,
}

impl<B: BufRead> GzipReader<B> {
    /// Reads from the start of a member.
    pub fn new(blob: B) -> Self {
        Self { blob, inflater: Inflater::default(), member: None }
    }

    /// Returns the blob.
    pub fn get_ref(&self) -> &B {
        &self.blob
    }

    /// Fills `out` from `at` on, behind the content before it, as far as [`Inflater::inflate`] does; false once the blob
    /// has ended.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] and [`ErrorKind::UnexpectedEof`], with `at` at the end of the content before the fault;
    /// what the blob says.
    pub fn fill(&mut self, out: &mut Inflated, at: &mut usize) -> io::Result<bool> {
        loop {
            let begin = *at;
            let filled = self.fill_of_member(out, at);
            if filled.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidData) {
                // Python's zlib does not give the last byte before a fault, and both engines shall stop at the same place.
                *at = begin.max(at.saturating_sub(1));
            }
            match filled? {
                Some(Pause::Full) => return Ok(true),
                Some(Pause::End) => {}
                None => return Ok(false),
            }
        }
    }

    /// Reads from where the member is; `None` if there is no further one.
    fn fill_of_member(&mut self, out: &mut Inflated, at: &mut usize) -> io::Result<Option<Pause>> {
        let Self { blob, inflater, member } = self;
        let (mut sum, mut length) = match *member {
            Some(state) => state,
            None if inflater.is_at_end(blob)? => return Ok(None),
            None => {
                read_header(inflater, blob)?;
                inflater.begin();
                (0, 0)
            }
        };
        let begin = *at;
        let pause = inflater.inflate(blob, out, at);
        let content = &out[begin..*at];
        (sum, length) = (crc32(sum, content), length.wrapping_add(content.len() as u32));
        *member = Some((sum, length));
        let pause = pause?;
        if pause == Pause::End {
            for expected in [sum, length] {
                check(inflater.take_bytes(4, blob)? == expected)?;
            }
            *member = None;
        }
        Ok(Some(pause))
    }
}

/// Reads the header of a member.
fn read_header(inflater: &mut Inflater, blob: &mut impl BufRead) -> io::Result<()> {
    let mut sum = 0;
    let mut take = |count: u32| {
        let bytes = inflater.take_bytes(count, blob)?;
        sum = crc32(sum, &bytes.to_le_bytes()[..count as usize]);
        Ok::<_, io::Error>((bytes, sum))
    };
    check(take(2)?.0 == MAGIC)?;
    let kind = take(2)?.0;
    let flags = kind >> 8;
    check(kind & 0xff == DEFLATE && flags & RESERVED == 0)?;
    // Time, level and system.
    take(4)?;
    take(2)?;
    if flags & HAS_EXTRA != 0 {
        for _ in 0..take(2)?.0 {
            take(1)?;
        }
    }
    for field in [HAS_NAME, HAS_COMMENT] {
        while flags & field != 0 && take(1)?.0 != 0 {}
    }
    if flags & HAS_HEADER_SUM != 0 {
        let (_, sum) = take(0)?;
        check(take(2)?.0 == sum & 0xffff)?;
    }
    Ok(())
}

fn check(is_right: bool) -> io::Result<()> {
    if is_right { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}
