//! Decides which paths are compared.
//!
//! Law: the changes within a scope are those between the two trees with all removed that is outside of it. What is outside is
//! thus never added, and never deleted by itself; nothing below a directory that is outside is looked at.

use std::ffi::CStr;
use std::sync::Arc;

use super::pair::{Located, NameLookup, OpenDirPair};
use super::patterns::{Fitted, Patterns, States};
use crate::control::Control;
use crate::error::Result;
use crate::metadata::{FileType, Metadata};
use crate::tree::XattrReader;

/// The paths that count: all that no rule excludes. What is mounted in the trees counts only if asked for.
#[derive(Debug)]
pub struct Scope {
    patterns: Patterns,
    /// True if sockets are outside.
    sockets: bool,
    /// The treatment of mount points.
    mounts: Mounts,
}

/// The treatment of what is mounted in the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mounts {
    /// It counts.
    Crossed,
    /// It is outside.
    Outside,
    /// The mount point is listed, and nothing below it.
    Named,
}

impl Scope {
    /// Returns a scope of patterns. The last one that fits a path decides.
    pub fn new(patterns: Patterns, sockets: bool, cross_mounts: bool) -> Self {
        Self { patterns, sockets, mounts: if cross_mounts { Mounts::Crossed } else { Mounts::Outside } }
    }

    /// Returns the scope of a whole tree. Unless mounts are crossed, only the names of mount points count.
    pub fn all(cross_mounts: bool) -> Self {
        let mounts = if cross_mounts { Mounts::Crossed } else { Mounts::Named };
        Self { patterns: Patterns::default(), sockets: false, mounts }
    }

    /// Returns true if only the name of this entry counts, because it is a mount point.
    pub fn only_names(&self, metadata: &Metadata) -> bool {
        self.mounts == Mounts::Named && metadata.mount_root
    }

    /// Returns true if patterns are to be asked, and so paths are needed.
    pub fn needs_paths(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Returns the patterns that have fitted a path, which grow while trees are compared.
    pub fn fitted(&self) -> Arc<Fitted> {
        self.patterns.fitted()
    }

    /// Returns the states of the patterns before a name in the directory at `path`.
    pub fn enter(&self, path: &[u8]) -> States {
        self.patterns.enter(path)
    }

    /// Returns what is left of what both trees have under a name; `states` are those of its directory.
    pub fn narrow<'a>(
        &self,
        states: &States,
        found: NameLookup<'a>,
        pair: &'a OpenDirPair,
        index: usize,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<NameLookup<'a>> {
        match found {
            NameLookup::Nothing => Ok(NameLookup::Nothing),
            NameLookup::Gone(name) => {
                let Some(lower) = pair.lower(index, xattrs)? else { return Ok(NameLookup::Nothing) };
                if self.is_mount(&lower) {
                    control.add_mount();
                } else if self.excludes(states, name, &lower.metadata) {
                    control.add_excluded();
                } else {
                    return Ok(NameLookup::Gone(name));
                }
                Ok(NameLookup::Nothing)
            }
            NameLookup::Found { name, upper, lower } => {
                // Files below a mount are not known, so that neither side counts.
                if self.is_mount(&upper) || lower.as_ref().is_some_and(|lower| self.is_mount(lower)) {
                    control.add_mount();
                    return Ok(NameLookup::Nothing);
                }
                let is_out = self.excludes(states, name, &upper.metadata);
                let differs = lower.as_ref().is_none_or(|lower| seem_different(&lower.metadata, &upper.metadata));
                // A socket takes the place of what was there, and says nothing of it.
                let hides = self.sockets && upper.metadata.file_type == FileType::Socket;
                let below = lower.filter(|lower| !hides && !self.excludes(states, name, &lower.metadata));
                if is_out && differs {
                    control.add_excluded();
                }
                Ok(match below {
                    lower if !is_out => NameLookup::Found { name, upper, lower },
                    Some(_) => NameLookup::Gone(name),
                    None => NameLookup::Nothing,
                })
            }
        }
    }

    fn is_mount(&self, located: &Located<'_>) -> bool {
        // An index has nothing of what was mounted when it was made.
        located.metadata.mount_root && (self.mounts == Mounts::Outside || located.is_recorded())
    }

    fn excludes(&self, states: &States, name: &CStr, metadata: &Metadata) -> bool {
        if self.sockets && metadata.file_type == FileType::Socket {
            return true;
        }
        self.needs_paths() && self.patterns.exclude(states, name.to_bytes(), metadata.is_directory())
    }
}

/// Returns true if two entries differ, without a look at their contents or attributes.
fn seem_different(lower: &Metadata, upper: &Metadata) -> bool {
    let times = |m: &Metadata| (m.size, m.mtime, m.mtime_ns);
    !lower.has_facts_of(upper) || !upper.is_directory() && times(lower) != times(upper)
}
