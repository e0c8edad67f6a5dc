//! Segments of layers that are compressed once: their keys, the tables that list them, and their way out of older blobs.
//!
//! A segment is the compressed form of a [`Block`]: of gzip of one before the last one of a layer, of zstd a frame. Its bytes
//! depend on its data, the dictionary before it, the encoder and the level. A table beside a blob lists its segments by a hash
//! of all these, so that a later layer copies the bytes.
//!
//! Law: a layer has the same bytes with any tables, and with none. What a table or a blob says is checked before it is used; a
//! segment that fails a check is compressed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};
use twox_hash::XxHash3_64;

use super::block::Block;
use super::{Compression, gzip, zstd};

const MAGIC_BYTES: usize = 8;
const KEY_BYTES: usize = 32;
/// Key; offset in the blob; hash of the compressed bytes; their length; length and CRC-32 of the plain bytes, which is 0 for zstd.
const RECORD_BYTES: usize = KEY_BYTES + 8 + 8 + 4 + 4 + 4;
const CHECKSUM_BYTES: usize = 8;
/// One of so many copied segments is decompressed and compared, so that a fault of this module shows.
const PROVED_EACH: u8 = 64;

/// The hash of encoder, level, dictionary and data.
pub type Key = [u8; KEY_BYTES];

/// The kind of the segments of a table. A table of one kind is never used for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Blocks of deflate.
    Gzip,
    /// Frames of zstd.
    Zstd,
}

impl Kind {
    /// Returns the kind of segments that blobs of a compression have, if they have any.
    pub fn of(compression: Compression) -> Option<Self> {
        match compression {
            Compression::Gzip { .. } => Some(Self::Gzip),
            Compression::Zstd { .. } => Some(Self::Zstd),
            Compression::None => None,
        }
    }

    /// The first bytes of a table: its kind and version.
    fn magic(self) -> [u8; MAGIC_BYTES] {
        match self {
            Self::Gzip => *b"ocidseg1",
            Self::Zstd => *b"ocidzst1",
        }
    }

    fn is_block(self, bytes: &[u8], block: &Block) -> bool {
        match self {
            Self::Gzip => gzip::is_block(bytes, block),
            Self::Zstd => zstd::is_block(bytes, block),
        }
    }
}

/// Returns the numbers and versions of the encoders. Equal tars, levels and encoders give equal blobs.
pub fn encoders() -> String {
    format!("{} {} {}", gzip::ENCODER, zstd::ENCODER, zstd::version())
}

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
fn encode_table(kind: Kind, mut segments: Vec<Segment>) -> Vec<u8> {
    segments.sort_unstable_by_key(|segment| (segment.key, segment.offset));
    segments.dedup_by_key(|segment| segment.key);
    let mut table = Vec::with_capacity(MAGIC_BYTES + segments.len() * RECORD_BYTES + CHECKSUM_BYTES);
    table.extend(kind.magic());
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
    /// Reads a table; `None` if it cannot be read, is damaged, or is of another kind or version.
    pub fn new(kind: Kind, table: &File, blob: File) -> Option<Self> {
        let mut bytes = vec![0; usize::try_from(table.metadata().ok()?.len()).ok()?];
        table.read_exact_at(&mut bytes, 0).ok()?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let records = body.strip_prefix(&kind.magic())?;
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
    kind: Kind,
    sources: Vec<Source>,
    tables: Vec<File>,
    proves_all: bool,
}

impl Segments {
    /// Segments of these blobs, all of one kind; the first that has one wins. Each of `tables` takes the segments of a new blob.
    /// With `proves_all` each copy is decompressed and compared.
    pub fn new(kind: Kind, sources: Vec<Source>, tables: Vec<File>, proves_all: bool) -> Self {
        Self { kind, sources, tables, proves_all }
    }

    /// Writes the table of a finished blob, if there is a table of that number. It is left empty if it cannot be written: the
    /// layer is whole without it.
    pub fn write_table(&self, number: usize, segments: Vec<Segment>) {
        let Some(table) = self.tables.get(number) else { return };
        if table.write_all_at(&encode_table(self.kind, segments), 0).is_err() {
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
        let is_right = XxHash3_64::oneshot(&bytes) == segment.check && (!is_proved || self.kind.is_block(&bytes, block));
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

/// Makes keys for one encoder and level.
#[derive(Clone)]
pub struct Keys(blake3::Hasher);

impl Keys {
    /// Keys of segments of this compression.
    pub fn new(compression: Compression) -> Self {
        let context = match compression {
            Compression::Gzip { level } => format!("ocidiff gzip segments {}, level {level}", gzip::ENCODER),
            Compression::Zstd { level } => {
                format!("ocidiff zstd frames {} by {}, level {level}", zstd::ENCODER, zstd::version())
            }
            Compression::None => "ocidiff plain".into(),
        };
        Self(blake3::Hasher::new_derive_key(&context))
    }

    /// The key of a segment.
    pub fn key(&self, block: &Block) -> Key {
        let mut hasher = self.0.clone();
        hasher.update(&(block.start() as u64).to_le_bytes());
        hasher.update(block.dictionary_and_data());
        *hasher.finalize().as_bytes()
    }
}

/// Describes compressed bytes for a table; the offset is not known yet.
pub fn describe(key: Key, bytes: &[u8], plain: usize, checksum: u32) -> Segment {
    let check = XxHash3_64::oneshot(bytes);
    Segment { key, offset: 0, check, length: bytes.len() as u32, plain: plain as u32, checksum }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;
    use crate::compress::block::filled;
    use crate::compress::piece::Encoder;
    use crate::control::Control;

    const BOTH: [Compression; 2] = [Compression::Gzip { level: 6 }, Compression::Zstd { level: 3 }];

    #[test]
    fn a_proof_finds_a_table_that_leads_to_other_contents() {
        for compression in BOTH {
            let kind = Kind::of(compression).unwrap();
            let (mine, other) = (filled(compression, &[], &[1; 5000]), filled(compression, &[], &[2; 5000]));
            let bytes = Encoder::new(compression).unwrap().unwrap().encode(&other, &Control::default()).unwrap();
            let key = Keys::new(compression).key(&mine);
            assert!(!key[0].is_multiple_of(PROVED_EACH), "this one is not proved anyway");
            let (mut blob, mut table) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            blob.write_all(&bytes).unwrap();
            table.write_all(&encode_table(kind, vec![describe(key, &bytes, 5000, 0)])).unwrap();
            for proves_all in [false, true] {
                let source = Source::new(kind, &table, blob.try_clone().unwrap()).unwrap();
                let segments = Segments::new(kind, vec![source], Vec::new(), proves_all);
                assert_eq!(segments.copy(&key, &mine).is_none(), proves_all, "{compression:?}");
            }
        }
    }

    #[test]
    fn keys_differ_by_compression_and_level() {
        let all = [1, 6].map(|level| [Compression::Gzip { level }, Compression::Zstd { level }]);
        let block = filled(BOTH[0], &[], &[1; 5000]);
        let mut keys: Vec<_> = all.as_flattened().iter().map(|&one| Keys::new(one).key(&block)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 4);
    }

    #[test]
    fn a_table_of_one_kind_is_not_read_as_the_other() {
        for (kind, other) in [(Kind::Gzip, Kind::Zstd), (Kind::Zstd, Kind::Gzip)] {
            let (blob, mut table) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            table.write_all(&encode_table(kind, vec![describe([7; KEY_BYTES], &[1; 10], 10, 0)])).unwrap();
            assert!(Source::new(kind, &table, blob.try_clone().unwrap()).is_some());
            assert!(Source::new(other, &table, blob).is_none());
        }
    }
}
