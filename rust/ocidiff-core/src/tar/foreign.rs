//! Recognizes other formats that a stream may have in place of a tar.

use crate::cause::Cause;
use crate::error::Error;

/// The first bytes of compressed data. None of it is the beginning of a tar header with a right checksum in practice, and
/// it is only looked at where there is none.
const MAGICS: [(&[u8], &str); 13] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"\x1f\xa0", "compress"),
    (b"LZIP", "lzip"),
    (b"\x5d\0\0", "lzma"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    // A layer that was compressed twice.
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

/// Returns the name of the compression that a stream has which begins like this.
pub(super) fn compression_of(head: &[u8]) -> Option<&'static str> {
    MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, name)| name)
}

/// Returns the error of a stream with that compression.
pub(super) fn unsupported(format: &'static str) -> Error {
    Error::Unsupported { path: "layer".into(), reason: Cause::CompressedData { format } }
}
