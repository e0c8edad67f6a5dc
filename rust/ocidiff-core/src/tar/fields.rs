//! The fields of a header block, as they are read.

use std::ops::Range;

use super::header::BLOCK_BYTES;

use crate::cause::Cause;

/// A moment, with seconds floored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

impl Time {
    /// Returns a moment without a fraction.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }

    /// Reads decimal seconds with an optional fraction, of which nine digits count.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
            Some(dot) => (&text[..dot], &text[dot + 1..]),
            None => (text, &b""[..]),
        };
        let seconds = decimal(whole)?;
        let mut nanoseconds = 0;
        for index in 0..9 {
            nanoseconds = nanoseconds * 10 + u32::from(fraction.get(index).map_or(0, |digit| digit.wrapping_sub(b'0')) % 10);
        }
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        if whole.starts_with(b"-") && nanoseconds > 0 {
            return Some(Self { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
        }
        Some(Self { seconds, nanoseconds })
    }
}

/// Parses decimal digits with an optional minus, and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Returns the bytes before the first NUL.
pub(super) fn field_text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Parses an octal field, or one in base 256 as GNU writes large and negative numbers.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement, whose sign is the bit below the marker.
        let mut value = if first & 0x40 != 0 { i128::from(first) - 0x100 } else { i128::from(first & 0x7f) };
        for &byte in &field[1..] {
            value = value << 8 | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let padded = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !padded(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !padded(byte)).map_or(start, |last| last + 1);
    field_text(&field[start..end]).iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => Some(value.checked_mul(8)? + i64::from(digit - b'0')),
        _ => None,
    })
}

/// The numbers of a header block, and the names that its format adds to the first one.
#[derive(Debug)]
pub(super) struct Fields {
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: i64,
    /// Access time, which GNU tar and star can store in the block itself.
    pub atime: Option<i64>,
    /// Major and minor number; 0 in old tar, which has none.
    pub device: (i64, i64),
    /// Directory part of the name; empty for none.
    pub prefix: Vec<u8>,
}

impl Fields {
    /// Reads the block; says what is wrong otherwise.
    pub fn read(block: &[u8; BLOCK_BYTES]) -> Result<Self, Cause> {
        let field = |range: Range<usize>, field: &'static str| number(&block[range]).ok_or(Cause::FieldIsNoNumber { field });
        let mut fields = Self {
            mode: field(100..108, "mode")?,
            uid: field(108..116, "uid")?,
            gid: field(116..124, "gid")?,
            size: field(124..136, "size")?,
            mtime: field(136..148, "mtime")?,
            atime: None,
            device: (0, 0),
            prefix: Vec::new(),
        };
        let (is_ustar, is_gnu) = (&block[257..263] == b"ustar\0", &block[257..265] == b"ustar  \0");
        if is_ustar || is_gnu {
            fields.device = (field(329..337, "devmajor")?, field(337..345, "devminor")?);
        }
        if is_gnu {
            fields.read_gnu(block);
        } else if is_ustar && &block[508..512] == b"tar\0" {
            fields.prefix = field_text(&block[345..476]).to_vec();
            fields.atime = Some(field(476..488, "atime")?);
            field(488..500, "ctime")?;
        } else if is_ustar {
            fields.prefix = field_text(&block[345..500]).to_vec();
        }
        Ok(fields)
    }

    /// Reads what GNU tar has in the place of a prefix: two times. Go before 1.8, and with it Docker before 17.06, wrote a
    /// prefix there, which reads as no time; Go's `archive/tar` still reads those.
    fn read_gnu(&mut self, block: &[u8; BLOCK_BYTES]) {
        let time = |range: Range<usize>| if block[range.start] == 0 { Some(None) } else { number(&block[range]).map(Some) };
        if let (Some(atime), Some(_)) = (time(345..357), time(357..369)) {
            self.atime = atime;
            return;
        }
        let prefix = field_text(&block[345..500]);
        if prefix.is_ascii() {
            self.prefix = prefix.to_vec();
        }
    }
}

/// Compares the checksum with both sums that tools have written: of unsigned bytes, and, of old, of signed ones.
pub(super) fn verify_checksum(block: &[u8; BLOCK_BYTES]) -> Result<(), Cause> {
    let stored = number(&block[148..156]).ok_or(Cause::FieldIsNoNumber { field: "checksum" })?;
    let counted = |index: usize| if (148..156).contains(&index) { b' ' } else { block[index] };
    let unsigned: i64 = (0..BLOCK_BYTES).map(|index| i64::from(counted(index))).sum();
    let signed: i64 = (0..BLOCK_BYTES).map(|index| i64::from(counted(index).cast_signed())).sum();
    if stored == unsigned || stored == signed { Ok(()) } else { Err(Cause::WrongHeaderChecksum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let cases: [(&[u8], Option<i64>); 11] = [
            (b"0000644\0", Some(0o644)),
            (b" 644 \0  ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn times_are_floored_to_seconds_and_nanoseconds() {
        let time = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        let cases: [(&[u8], Option<Time>); 10] = [
            (b"1700000000", time(1_700_000_000, 0)),
            (b"1.5", time(1, 500_000_000)),
            (b"1.", time(1, 0)),
            (b"1.12345678999", time(1, 123_456_789)),
            (b"-1.25", time(-2, 750_000_000)),
            (b"-0.5", time(-1, 500_000_000)),
            (b".5", None),
            (b"1.5x", None),
            (b"1e9", None),
            (b"99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Time::parse(text), expected, "{}", text.escape_ascii());
        }
    }
}
