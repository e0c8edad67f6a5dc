//! Explains changes: the reasons, and the bytes of both sides. Nothing here has a part in what a layer says.

use std::collections::HashMap;

use super::pair::{DirPair, Located, NameLookup};
use super::same::{CompareSide, Comparer};
use super::{Change, ChangeKind, Rules, Subject};
use crate::control::Control;
use crate::error::Result;
use crate::metadata::{FileType, InodeKey, Metadata};
use crate::tree::XattrReader;

/// Why a path is a change: it is new or gone, or a property in which its two entries differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Only the upper tree has it.
    New,
    /// Only the lower tree has it.
    Deleted,
    /// The kind of entry. It is the only reason then, since nothing else can be compared.
    Type,
    /// The number of a device.
    Device,
    /// The permissions and the three bits beside them.
    Mode,
    /// The user or the group.
    Owner,
    /// The modification time, as far as the rules look at it.
    Mtime,
    /// The extended attributes that the rules compare.
    Xattr,
    /// The length of a file.
    Size,
    /// The bytes of a file.
    Content,
    /// The target of a symbolic link.
    Link,
}

/// The reasons and sizes of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// All of them, in the order of [`Reason`]; at least one, unless the trees changed meanwhile.
    pub reasons: Vec<Reason>,
    /// Length of the file in the upper tree, 0 for all else; `None` where nothing is there.
    pub upper_bytes: Option<u64>,
    /// Length of the file in the lower tree. A directory that is gone, or no directory any more, has the bytes of all
    /// files below it.
    pub lower_bytes: Option<u64>,
}

impl Explanation {
    /// Explains an entry that only the upper tree has.
    pub fn of_new(upper: &Metadata) -> Self {
        Self { reasons: vec![Reason::New], upper_bytes: Some(file_bytes(upper)), lower_bytes: None }
    }

    /// Explains an entry that only the lower tree has.
    pub fn of_gone(lower: &Located<'_>, xattrs: &mut XattrReader, control: &Control) -> Result<Self> {
        let lower_bytes = Some(bytes_at(lower, xattrs, control)?);
        Ok(Self { reasons: vec![Reason::Deleted], upper_bytes: None, lower_bytes })
    }

    /// Explains two entries that differ.
    pub fn of_both(
        comparer: &mut Comparer,
        lower: &Located<'_>,
        upper: &Located<'_>,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<Self> {
        let reasons = comparer.reasons(lower.side(), upper.side(), xattrs, control)?;
        let lower_bytes =
            if upper.metadata.is_directory() { file_bytes(&lower.metadata) } else { bytes_at(lower, xattrs, control)? };
        Ok(Self { reasons, upper_bytes: Some(file_bytes(&upper.metadata)), lower_bytes: Some(lower_bytes) })
    }
}

impl Comparer {
    /// Returns all properties in which two entries differ. A verdict needs only one of them.
    fn reasons(
        &mut self,
        lower: CompareSide<'_>,
        upper: CompareSide<'_>,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<Vec<Reason>> {
        let (a, b) = (lower.metadata, upper.metadata);
        if a.file_type != b.file_type {
            return Ok(vec![Reason::Type]);
        }
        let differs = [
            (Reason::Device, a.device != b.device),
            (Reason::Mode, !a.has_mode_of(b)),
            (Reason::Owner, !a.has_owner_of(b)),
            (Reason::Mtime, !self.same_mtime(a, b)),
            (Reason::Xattr, !self.same_xattrs(lower, (upper, &upper.xattrs(xattrs)?.kept), xattrs)?),
        ];
        let mut reasons: Vec<_> = differs.into_iter().filter_map(|(reason, differs)| differs.then_some(reason)).collect();
        match b.file_type {
            FileType::File if a.size != b.size => reasons.extend([Reason::Size, Reason::Content]),
            FileType::File if !self.same_content(lower, upper, control)? => reasons.push(Reason::Content),
            FileType::Symlink if !self.same_content(lower, upper, control)? => reasons.push(Reason::Link),
            _ => {}
        }
        Ok(reasons)
    }
}

/// Returns the bytes of a file, or of all files below a directory.
fn bytes_at(located: &Located<'_>, xattrs: &mut XattrReader, control: &Control) -> Result<u64> {
    let mut bytes = file_bytes(&located.metadata);
    let mut todo = Vec::from_iter(DirPair::alone(located));
    while let Some(directory) = todo.pop() {
        let opened = directory.open(false, control)?;
        for index in 0..opened.len() {
            control.check()?;
            if let NameLookup::Found { upper: located, .. } = opened.lookup(index, false, xattrs, control)? {
                bytes = bytes.saturating_add(file_bytes(&located.metadata));
                todo.extend(DirPair::alone(&located));
            }
        }
    }
    Ok(bytes)
}

fn file_bytes(metadata: &Metadata) -> u64 {
    if metadata.file_type == FileType::File { metadata.size } else { 0 }
}

/// Counts the bytes of content that each change puts into a layer: a file's once, however many names it has.
pub struct Carried {
    rules: Rules,
    /// Names seen of each inode with several, and whether its content was counted.
    groups: HashMap<InodeKey, (u32, bool)>,
}

impl Carried {
    /// Returns a count for changes by these rules, which has to see all of them in order.
    pub fn new(rules: Rules) -> Self {
        Self { rules, groups: HashMap::new() }
    }

    /// Returns the bytes that the next change brings, and whether it is the first change of its file.
    pub fn next(&mut self, change: &Change) -> (u64, bool) {
        let Subject::Leaf { entry, .. } = &change.subject else { return (0, true) };
        let metadata = &entry.metadata;
        let changed = change.kind != ChangeKind::Unmodified;
        if metadata.links < 2 {
            return (if changed { file_bytes(metadata) } else { 0 }, changed);
        }
        let key = self.rules.link_key(metadata);
        let (seen, counted) = self.groups.remove(&key).unwrap_or_default();
        // Like a layer, forgets a group once all of its names were seen.
        if seen + 1 < metadata.links || !self.rules.device_in_links {
            self.groups.insert(key, (seen.saturating_add(1), counted || changed));
        }
        let is_first = changed && !counted;
        (if is_first { file_bytes(metadata) } else { 0 }, is_first)
    }
}
