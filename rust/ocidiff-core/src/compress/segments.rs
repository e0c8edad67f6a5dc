//! Segments of gzip layers that are compressed once: their keys, the tables that list them, and their way out of older blobs.
//!
//! A segment is a [`Block`] before the last one of a layer. Its compressed bytes depend on its data, the dictionary before it and
//! the level. A table beside a blob lists its segments by a hash of these three, so that a later layer copies the bytes.
//!
//! Law: a layer has the same bytes with any tables, and with none. What a table or a blob says is checked before it is used; a
//! segment that fails a check is compressed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use flate2::{Decompress, FlushDecompress, Status};
use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};
use twox_hash::XxHash3_64;

use super::block::Block;

/// The first bytes of a table: its kind and version.
const MAGIC: [u8; 8] = *b"ocidseg1";
const KEY_BYTES: usize = 32;
/// Key; offset in the blob; hash of the compressed bytes; their length; length and CRC-32 of the plain bytes.
const RECORD_BYTES: usize = KEY_BYTES + 8 + 8 + 4 + 4 + 4;
const CHECKSUM_BYTES: usize = 8;
/// The number of the encoder of gzip. Change it whenever a level gives other bytes than before.
pub const ENCODER: u32 = 3;
/// One of so many copied segments is inflated and compared, so that a fault of this module shows.
const PROVED_EACH: u8 = 64;

/// The hash of level, dictionary and data.
pub type Key = [u8; KEY_BYTES];

/// One segment of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// See [`Key`].
    pub key: Key,
    /// The offset of its compressed bytes in the blob.
    pub offset: u64,
    /// XXH3 of the compressed bytes.
    pub check: u64,
    /// The number of compressed bytes.
    pub length: u32,
    /// The number of plain bytes.
    pub plain: u32,
    /// CRC-32 of the plain bytes.
    pub checksum: u32,
}

impl Segment {
    fn read(record: &[u8; RECORD_BYTES]) -> Self {
        let (key, rest) = record.split_first_chunk().unwrap_or((&[0; KEY_BYTES], &[]));
        let word =
            |at: usize| u32::from_le_bytes(rest.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default());
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self { key: *key, offset: long(0), check: long(8), length: word(16), plain: word(20), checksum: word(24) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.key);
        out.extend(self.offset.to_le_bytes());
        out.extend(self.check.to_le_bytes());
        [self.length, self.plain, self.checksum].iter().for_each(|word| out.extend(word.to_le_bytes()));
    }
}

/// Returns the table of these segments, as it is stored.
fn encode_table(mut segments: Vec<Segment>) -> Vec<u8> {
    segments.sort_unstable_by_key(|segment| (segment.key, segment.offset));
    segments.dedup_by_key(|segment| segment.key);
    let mut table = Vec::with_capacity(MAGIC.len() + segments.len() * RECORD_BYTES + CHECKSUM_BYTES);
    table.extend(MAGIC);
    segments.iter().for_each(|segment| segment.write(&mut table));
    table.extend(XxHash3_64::oneshot(&table).to_le_bytes());
    table
}

/// An older blob and its table.
#[derive(Debug)]
pub struct Source {
    records: Vec<[u8; RECORD_BYTES]>,
    blob: File,
}

impl Source {
    /// Reads a table; `None` if it cannot be read, is damaged, or is of another version.
    pub fn new(table: &File, blob: File) -> Option<Self> {
        let mut bytes = vec![0; usize::try_from(table.metadata().ok()?.len()).ok()?];
        table.read_exact_at(&mut bytes, 0).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let records = body.strip_prefix(&MAGIC)?;
        if u64::from_le_bytes(*checksum) != XxHash3_64::oneshot(body) {
            return None;
        }
        let (records, rest) = records.as_chunks::<RECORD_BYTES>();
        rest.is_empty().then(|| Self { records: records.to_vec(), blob })
    }

    fn find(&self, key: &Key) -> Option<Segment> {
        let place = self.records.binary_search_by_key(&&key[..], |record| &record[..KEY_BYTES]).ok()?;
        Some(Segment::read(&self.records[place]))
    }
}

/// The segments that layers may copy, and where the tables of their own go.
#[derive(Debug)]
pub struct Segments {
    sources: Vec<Source>,
    tables: Vec<File>,
    proves_all: bool,
}

impl Segments {
    /// Segments of these blobs, the first that has one wins. Each of `tables` takes the segments of a new blob. With `proves_all`
    /// each copy is inflated and compared.
    pub fn new(sources: Vec<Source>, tables: Vec<File>, proves_all: bool) -> Self {
        Self { sources, tables, proves_all }
    }

    /// Writes the table of a finished blob, if there is a table of that number. It is left empty if it cannot be written: the
    /// layer is whole without it.
    pub fn write_table(&self, number: usize, segments: Vec<Segment>) {
        let Some(table) = self.tables.get(number) else { return };
        if table.write_all_at(&encode_table(segments), 0).is_err() {
            // A part of a table is never used, so it does no harm if this fails too.
            let _ = table.set_len(0);
        }
    }

    /// Copies the compressed bytes of a segment, if an older blob has them.
    pub fn copy(&self, key: &Key, block: &Block) -> Option<(Segment, Vec<u8>)> {
        self.sources.iter().find_map(|source| self.copy_from(source, key, block))
    }

    fn copy_from(&self, source: &Source, key: &Key, block: &Block) -> Option<(Segment, Vec<u8>)> {
        let segment = source.find(key)?;
        let most = block.data().len() + block.data().len() / 128 + 128;
        if segment.plain as usize != block.data().len() || segment.length as usize > most {
            return None;
        }
        let bytes = read_exactly(&source.blob, segment.length as usize, segment.offset)?;
        let is_proved = self.proves_all || key[0].is_multiple_of(PROVED_EACH);
        let is_right = XxHash3_64::oneshot(&bytes) == segment.check && (!is_proved || inflates_to(&bytes, block));
        is_right.then_some((segment, bytes))
    }
}

/// Reads `count` bytes at `offset`, into memory that is not cleared first; `None` if they cannot be read.
fn read_exactly(file: &File, count: usize, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let here = offset + bytes.len() as u64;
        match retry_on_intr(|| pread(file, spare_capacity(&mut bytes), here)) {
            Ok(1..) => bytes.truncate(count),
            _ => return None,
        }
    }
    Some(bytes)
}

/// Makes keys for one level.
#[derive(Clone)]
pub struct Keys(blake3::Hasher);

impl Keys {
    /// Keys of segments that are compressed at `level`.
    pub fn new(level: i32) -> Self {
        Self(blake3::Hasher::new_derive_key(&format!("ocidiff gzip segments {ENCODER}, level {level}")))
    }

    /// The key of a segment.
    pub fn key(&self, block: &Block) -> Key {
        let mut hasher = self.0.clone();
        hasher.update(&(block.start() as u64).to_le_bytes());
        hasher.update(&block.window()[..block.end()]);
        *hasher.finalize().as_bytes()
    }
}

/// Describes compressed bytes for a table; the offset is not known yet.
pub fn describe(key: Key, bytes: &[u8], plain: usize, checksum: u32) -> Segment {
    let check = XxHash3_64::oneshot(bytes);
    Segment { key, offset: 0, check, length: bytes.len() as u32, plain: plain as u32, checksum }
}

/// True if compressed bytes give the data of a block, and end on a byte boundary.
fn inflates_to(bytes: &[u8], block: &Block) -> bool {
    let mut inflate = Decompress::new(false);
    let mut plain = vec![0; block.end() + 1];
    // A stored block brings the dictionary into the window of the decoder.
    let dictionary = &block.window()[..block.start()];
    let length = dictionary.len() as u16;
    let stored = [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), dictionary].concat();
    // An empty block that is the last one ends the stream only if it begins where the segment ends.
    let end = [3, 0];
    let mut status = Ok(Status::Ok);
    for input in [&stored[..], bytes, &end] {
        let before = inflate.total_in();
        let done = inflate.total_out() as usize;
        status = inflate.decompress(input, plain.get_mut(done..).unwrap_or_default(), FlushDecompress::None);
        if status.is_err() || inflate.total_in() - before != input.len() as u64 {
            return false;
        }
    }
    matches!(status, Ok(Status::StreamEnd))
        && plain[..block.end()] == block.window()[..block.end()]
        && inflate.total_out() == block.end() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;
    use crate::compress::block::Supply;
    use crate::compress::gzip::BlockCompressor;

    fn block(dictionary: &[u8], data: &[u8]) -> Block {
        let mut block = Supply::new(1).after(dictionary);
        block.space()[..data.len()].copy_from_slice(data);
        block.advance(data.len());
        block
    }

    #[test]
    fn only_the_bytes_of_a_block_with_its_dictionary_are_its_segment() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|number| (number * number).to_be_bytes()).collect();
        for dictionary in [&text[..0], &text[..100], &text[..40_000]] {
            let (mine, other) = (block(dictionary, &text), block(dictionary, &text[1..]));
            let bytes = BlockCompressor::new(6, None).compress(&mine).bytes;
            assert!(inflates_to(&bytes, &mine));
            assert!(!inflates_to(&bytes, &other));
            assert!(!inflates_to(&bytes[..bytes.len() - 1], &mine));
            assert!(!inflates_to(&[&bytes[..], &[0]].concat(), &mine));
        }
    }

    #[test]
    fn a_proof_finds_a_table_that_leads_to_other_contents() {
        let (mine, other) = (block(&[], &[1; 5000]), block(&[], &[2; 5000]));
        let bytes = BlockCompressor::new(6, None).compress(&other).bytes;
        let key = Keys::new(6).key(&mine);
        assert!(!key[0].is_multiple_of(PROVED_EACH), "this one is not proved anyway");
        let (mut blob, mut table) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        blob.write_all(&bytes).unwrap();
        table.write_all(&encode_table(vec![describe(key, &bytes, 5000, 0)])).unwrap();
        for proves_all in [false, true] {
            let source = Source::new(&table, blob.try_clone().unwrap()).unwrap();
            let segments = Segments::new(vec![source], Vec::new(), proves_all);
            assert_eq!(segments.copy(&key, &mine).is_none(), proves_all);
        }
    }
}
