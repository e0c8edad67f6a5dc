//! Owners and modes that fuse-overlayfs keeps in an attribute, if it is mounted with `xattr_permissions`.

use std::ffi::CStr;
use std::sync::Arc;

use crate::cause::{Cause, escaped};
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::rules::linux::MODE_BITS;
use crate::tree::{TreeDir, XattrReader};

/// The attributes, in the order in which the root of a layer is asked for one.
const KEYS: [&CStr; 2] = [c"security.fuseoverlayfs.override_stat", c"user.fuseoverlayfs.override_stat"];

/// Returns the attribute that holds the owners and modes of a layer, if its root has one.
pub fn key_of(root: &Arc<TreeDir>, reader: &mut XattrReader) -> Result<Option<&'static CStr>> {
    for key in KEYS {
        if reader.raw(root, c".", key)?.is_some() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Returns what `metadata` says with the owner and mode in the attribute `key`, or `None` without it.
///
/// # Errors
/// [`Error::Unsupported`] for a value that fuse-overlayfs refuses too; [`Error::Io`].
pub fn overridden(
    directory: &TreeDir,
    name: &CStr,
    key: &CStr,
    metadata: Metadata,
    reader: &mut XattrReader,
) -> Result<Option<Metadata>> {
    let Some(value) = reader.raw(directory, name, key)? else { return Ok(None) };
    match parse(value) {
        Some((uid, gid, mode)) => Ok(Some(Metadata { uid, gid, mode: mode & MODE_BITS, ..metadata })),
        None => {
            let reason = Cause::InvalidAttribute { key: escaped(key.to_bytes()) };
            Err(Error::Unsupported { path: directory.path_of(name), reason })
        }
    }
}

/// Reads `UID:GID:MODE`, the mode in octal.
fn parse(value: &[u8]) -> Option<(u32, u32, u32)> {
    let mut fields = value.split(|&byte| byte == b':');
    let mut number = |radix| {
        let digits = fields.next().filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
    };
    let found = (number(10)?, number(10)?, number(8)?);
    fields.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_mode_are_read() {
        assert_eq!(parse(b"7:8:100711"), Some((7, 8, 0o100_711)));
        assert_eq!(parse(b"4294967295:0:0"), Some((u32::MAX, 0, 0)));
        for value in [&b""[..], b"7:8", b"7:8:", b"7:8:9", b"-1:8:644", b"+1:8:644", b"7:8:644:dir", b"4294967296:0:0"] {
            assert_eq!(parse(value), None);
        }
    }
}
