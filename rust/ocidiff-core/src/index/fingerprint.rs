//! Hashes that stand for contents and attributes.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::io::retry_on_intr;
use twox_hash::XxHash3_128;

use crate::cause::Cause;
use crate::control::Control;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::rules::xattr::CAPABILITY;
use crate::tree::{TreeDir, Xattr, XattrPolicy};

/// An XXH3-128 hash, in the canonical order of bytes.
pub type Xxh3 = [u8; 16];

/// The hashes that contents get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// XXH3-128 alone.
    Xxh3,
    /// Also sha256.
    Sha256,
}

/// The hashes of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// XXH3-128.
    pub xxh3: Xxh3,
    /// sha256, if it was asked for.
    pub sha256: Option<[u8; 32]>,
}

impl Fingerprint {
    /// Returns true if the hashes of two contents agree. sha256 decides if both have it.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.sha256, other.sha256) {
            (Some(one), Some(other)) => one == other,
            _ => self.xxh3 == other.xxh3,
        }
    }

    /// Returns which hashes these are.
    pub fn wanted(&self) -> Wanted {
        if self.sha256.is_some() { Wanted::Sha256 } else { Wanted::Xxh3 }
    }
}

/// Takes a content in pieces.
pub struct FingerprintHasher {
    xxh3: XxHash3_128,
    sha256: Option<Hasher>,
}

impl FingerprintHasher {
    /// Returns a hasher of no bytes yet.
    pub fn new(wanted: Wanted) -> Self {
        Self { xxh3: XxHash3_128::new(), sha256: (wanted == Wanted::Sha256).then(Hasher::default) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.xxh3.write(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// Returns the hashes of all bytes.
    pub fn finish(self) -> Fingerprint {
        Fingerprint {
            xxh3: self.xxh3.finish_128().to_be_bytes(),
            sha256: self.sha256.map(|sha256| sha256.finish().0.bytes()),
        }
    }
}

/// Returns the hashes of a file. Fails if it is not the file that was seen, or changes meanwhile. `buffer` is any room for
/// its bytes.
///
/// # Errors
/// [`Error::SourceChanged`]; [`Error::Io`].
pub fn fingerprint_file(
    (directory, name): (&TreeDir, &CStr),
    expected: &Metadata,
    wanted: Wanted,
    buffer: &mut [u8],
    control: &Control,
) -> Result<Fingerprint> {
    let file = directory.open_file(name)?;
    let unchanged = || match directory.open_metadata(&file, name)? {
        found if found == *expected => Ok(()),
        _ => Err(Error::SourceChanged { path: directory.path_of(name), reason: Cause::MetadataChanged }),
    };
    unchanged()?;
    let found = fingerprint_open_file(&file, (directory, name), expected.size, wanted, buffer, control)?;
    unchanged()?;
    found.ok_or_else(|| Error::SourceChanged { path: directory.path_of(name), reason: Cause::BecameShorter })
}

/// Returns the hashes of the first `size` bytes of a file; `None` when it has fewer.
///
/// # Errors
/// [`Error::Io`].
pub fn fingerprint_open_file(
    file: &OwnedFd,
    (directory, name): (&TreeDir, &CStr),
    size: u64,
    wanted: Wanted,
    buffer: &mut [u8],
    control: &Control,
) -> Result<Option<Fingerprint>> {
    let mut hasher = FingerprintHasher::new(wanted);
    let mut left = size;
    while left > 0 {
        control.check()?;
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = retry_on_intr(|| rustix::io::read(file, &mut buffer[..most]));
        match read.map_err(|errno| Error::io("read", directory.path_of(name), errno))? {
            0 => return Ok(None),
            count => {
                hasher.update(&buffer[..count]);
                left -= count as u64;
            }
        }
    }
    Ok(Some(hasher.finish()))
}

/// Hashes of the attributes that can count, apart where the policies differ; none of no attribute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XattrDigests {
    /// Hash of the value of `security.capability`.
    pub capability: Option<Xxh3>,
    /// Hash of names and values of all others.
    pub others: Option<Xxh3>,
}

impl XattrDigests {
    /// Returns the hashes of attributes that are not empty, sorted by name.
    pub fn of(xattrs: &[Xattr]) -> Self {
        let mut digests = Self::default();
        let mut others = XxHash3_128::new();
        let mut has_others = false;
        for (name, value) in xattrs {
            if name.as_c_str() == CAPABILITY {
                digests.capability = Some(XxHash3_128::oneshot(value).to_be_bytes());
                continue;
            }
            has_others = true;
            // Each with its length in front, so that no other list has the same bytes.
            for part in [name.to_bytes(), value] {
                others.write(&(part.len() as u32).to_le_bytes());
                others.write(part);
            }
        }
        if has_others {
            digests.others = Some(others.finish_128().to_be_bytes());
        }
        digests
    }

    /// Returns these hashes without those that the policy does not look at.
    pub fn seen_by(self, policy: XattrPolicy) -> Self {
        match policy {
            XattrPolicy::Capability => Self { others: None, ..self },
            XattrPolicy::Portable => self,
        }
    }
}
