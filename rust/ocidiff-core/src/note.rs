//! The note on a file that could not get its owner, mode or kind: `user.containers.override_stat`, as containers/storage and
//! fuse-overlayfs write it. Spec: docs/decisions/0050-notes-are-read.md.

use crate::metadata::FileType;
use crate::rules::linux::{MAX_ID, MAX_MAJOR, MAX_MINOR, MODE_BITS};

/// The mode of an empty file that stands for a device: nobody shall write to it, and its owner may read its note.
pub const STAND_IN_MODE: u32 = 0o400;
/// Room for every note that is understood.
pub const MAX_NOTE_BYTES: usize = 128;
/// The bits that would lend the rights of an owner that a file could not get.
pub const SET_IDS: u32 = 0o6000;

/// The owner, mode and kind that a file should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
    /// The low 12 bits of the mode.
    pub mode: u32,
    /// The kind that an empty file stands for, with the number of a device; `None` for what the file itself is.
    pub kind: Option<(FileType, (u32, u32))>,
}

impl Note {
    /// Reads `UID:GID:MODE[:KIND]`; `None` for anything else.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.split(':');
        let mut number = |radix| fields.next().and_then(|digits| number(digits, radix));
        let (uid, gid, mode) = (number(10)?, number(10)?, number(8)?);
        if uid > MAX_ID || gid > MAX_ID || mode > MODE_BITS {
            return None;
        }
        let kind = match fields.next() {
            None | Some("file" | "dir") => None,
            Some("pipe") => Some((FileType::Fifo, (0, 0))),
            Some("socket") => Some((FileType::Socket, (0, 0))),
            Some(device) => Some(device_of(device)?),
        };
        fields.next().is_none().then_some(Self { uid, gid, mode, kind })
    }

    /// Returns the note as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let Self { uid, gid, mode, .. } = self;
        let kind = match self.kind {
            Some((FileType::CharDevice, (major, minor))) => format!(":char-{major}-{minor}"),
            Some((FileType::BlockDevice, (major, minor))) => format!(":block-{major}-{minor}"),
            Some((FileType::Fifo, _)) => ":pipe".into(),
            Some((FileType::Socket, _)) => ":socket".into(),
            _ => String::new(),
        };
        format!("{uid}:{gid}:0{mode:o}{kind}").into_bytes()
    }
}

fn number(digits: &str, radix: u32) -> Option<u32> {
    // from_str_radix would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

fn device_of(text: &str) -> Option<(FileType, (u32, u32))> {
    let mut parts = text.split('-');
    let file_type = match parts.next()? {
        "char" => FileType::CharDevice,
        "block" => FileType::BlockDevice,
        _ => return None,
    };
    let (major, minor) = (number(parts.next()?, 10)?, number(parts.next()?, 10)?);
    // Character device 0:0 is a whiteout of overlayfs, and no device.
    let is_whiteout = file_type == FileType::CharDevice && (major, minor) == (0, 0);
    let fits = major <= MAX_MAJOR && minor <= MAX_MINOR && !is_whiteout;
    (fits && parts.next().is_none()).then_some((file_type, (major, minor)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in
            ["0:0:0644", "4294967294:7:07777", "1:2:00", "0:5:0620:char-5-1", "0:6:0660:block-4095-1048575", "0:0:0600:pipe"]
        {
            assert_eq!(Note::parse(text.as_bytes()).unwrap().encode(), text.as_bytes());
        }
        assert_eq!(Note::parse(b"0:0:0755:dir"), Note::parse(b"0:0:755"));
    }

    #[test]
    fn anything_else_is_no_note() {
        for text in [
            "",
            ":",
            "0:0",
            "0:0:",
            "0:0:8",
            "0:0:010000",
            "4294967295:0:0644",
            "0:4294967295:0644",
            "+1:0:0644",
            "-1:0:0644",
            " 1:0:0644",
            "0:0:0644:",
            "0:0:0644:char",
            "0:0:0644:char-1",
            "0:0:0644:char-0-0",
            "0:0:0644:char-4096-0",
            "0:0:0644:block-0-1048576",
            "0:0:0644:char-1-3-",
            "0:0:0644:char-1-3:x",
            "0:0:0644:symlink",
            "0:0:0644\0",
        ] {
            assert_eq!(Note::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
