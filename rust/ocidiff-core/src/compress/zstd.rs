//! Zstandard: frames one behind the other, each of which depends on its content and the level alone. Spec: RFC 8878.

use std::io::Read;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{
    self, CCtx, CParameter, InBuffer, OutBuffer, SafeResult, compress_bound, find_frame_compressed_size, get_error_name,
};

use super::block::Block;
use crate::control::Control;
use crate::error::{Error, Result};

/// The number of the form of frames. Change it whenever a level gives other bytes than before, with the same library.
pub const ENCODER: u32 = 1;
/// The largest window of our frames: no level has a larger one for so much content.
const WINDOW_LOG: u32 = 23;
/// From this level on a frame takes seconds, so that its content is fed in parts, between which it can be stopped. Faster levels
/// lose time and size that way.
const FED_LEVEL: i32 = 13;
/// Bytes of a part, which take a fifth of a second at most.
const FED_BYTES: usize = 256 << 10;
/// Bytes that are decompressed and compared at a time.
const COMPARED_BYTES: usize = 128 << 10;

/// Returns the version of the library, on which the bytes depend.
pub fn version() -> &'static str {
    zstd_safe::version_string()
}

/// Makes frames; one for each thread.
pub struct FrameEncoder {
    context: CCtx<'static>,
    level: i32,
}

impl FrameEncoder {
    /// Returns an encoder for `level`, 1 to 19.
    pub fn new(level: i32) -> Result<Self> {
        let mut context = CCtx::try_create().ok_or_else(|| failed("out of memory"))?;
        for parameter in [CParameter::CompressionLevel(level), CParameter::ChecksumFlag(true)] {
            checked(context.set_parameter(parameter))?;
        }
        Ok(Self { context, level })
    }

    /// Returns the frame of this content, with its size and checksum.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and [`Error::Io`] when there is no memory for it.
    pub fn encode(&mut self, content: &[u8], control: &Control) -> Result<Vec<u8>> {
        // Memory that is not written to takes no space.
        let mut frame = Vec::with_capacity(compress_bound(content.len()));
        if self.level < FED_LEVEL {
            checked(self.context.compress2(&mut frame, content))?;
        } else {
            self.feed(content, &mut OutBuffer::around(&mut frame), control)?;
        }
        frame.shrink_to_fit();
        Ok(frame)
    }

    fn feed(&mut self, content: &[u8], frame: &mut OutBuffer<'_, Vec<u8>>, control: &Control) -> Result<()> {
        checked(self.context.set_pledged_src_size(Some(content.len() as u64)))?;
        for part in content.chunks(FED_BYTES) {
            control.check()?;
            let mut part = InBuffer::around(part);
            while part.pos() < part.src.len() {
                checked(self.context.compress_stream2(frame, &mut part, ZSTD_EndDirective::ZSTD_e_continue))?;
            }
        }
        let mut nothing = InBuffer::around(&[]);
        while checked(self.context.compress_stream2(frame, &mut nothing, ZSTD_EndDirective::ZSTD_e_end))? > 0 {}
        Ok(())
    }
}

fn checked(result: SafeResult) -> Result<usize> {
    result.map_err(|code| failed(get_error_name(code)))
}

fn failed(why: &str) -> Error {
    Error::io("compress", "zstd", std::io::Error::other(why))
}

/// Returns true if these bytes are one frame whose content is that of the block. Little memory is taken, so that proofs do not
/// count.
pub fn is_block(bytes: &[u8], block: &Block) -> bool {
    if find_frame_compressed_size(bytes) != Ok(bytes.len()) {
        return false;
    }
    let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(bytes) else { return false };
    if decoder.window_log_max(WINDOW_LOG).is_err() {
        return false;
    }
    let mut buffer = vec![0; COMPARED_BYTES];
    let mut rest = block.data();
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return rest.is_empty(),
            Ok(count) => match rest.strip_prefix(&buffer[..count]) {
                Some(after) => rest = after,
                None => return false,
            },
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compress::Compression;
    use crate::compress::block::filled;

    #[test]
    fn only_one_frame_of_its_content_is_a_block() {
        let text: Vec<u8> = (0..60_000_u32).flat_map(|number| (number * number).to_be_bytes()).collect();
        let zstd = Compression::Zstd { level: 3 };
        let (mine, other) = (filled(zstd, &[], &text), filled(zstd, &[], &text[1..]));
        let (mut encoder, control) = (FrameEncoder::new(3).unwrap(), &Control::default());
        let frame = encoder.encode(&text, control).unwrap();
        let (empty, halves) = (encoder.encode(&[], control).unwrap(), text.split_at(text.len() / 2));
        let halves = [halves.0, halves.1].map(|half| encoder.encode(half, control).unwrap()).concat();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        assert!(is_block(&frame, &mine));
        assert!(!is_block(&frame, &other));
        assert!(!is_block(&frame, &filled(zstd, &[], &text[..text.len() - 1])));
        assert!(!is_block(&frame[..frame.len() - 1], &mine));
        for (before, after) in [(&[][..], &[0][..]), (&[], &empty), (&empty, &[]), (&[], &skippable), (&skippable, &[])] {
            assert!(!is_block(&[before, &frame, after].concat(), &mine));
        }
        assert!(!is_block(&halves, &mine));
        assert!(!is_block(&skippable, &mine));
    }

    #[test]
    fn a_frame_has_its_size_and_a_checksum() {
        for level in [1, 9, 13, 19] {
            let mut encoder = FrameEncoder::new(level).unwrap();
            for size in [0, 1, FED_BYTES, FED_BYTES + 1, 1_000_000] {
                let content: Vec<u8> = (0..size).map(|number| ((number * number) >> 7) as u8).collect();
                let frame = encoder.encode(&content, &Control::default()).unwrap();
                assert_eq!(zstd_safe::get_frame_content_size(&frame).ok().flatten(), Some(size as u64), "{level}");
                // RFC 8878, 3.1.1.1.1: Content_Checksum_flag.
                assert_eq!(frame[4] & 4, 4);
                assert!(is_block(&frame, &filled(Compression::Zstd { level }, &[], &content)));
                assert_eq!(encoder.encode(&content, &Control::default()).unwrap(), frame);
            }
        }
    }

    #[test]
    fn slow_levels_can_be_stopped_in_a_frame() {
        let control = Control::default();
        control.cancel();
        let stopped = FrameEncoder::new(19).unwrap().encode(&[7; 1000], &control);
        assert!(matches!(stopped, Err(Error::Cancelled)));
    }
}
