//! Which paths are compared.
//!
//! Law: the changes within a scope are those between the two trees with all removed that is outside of it. What is outside is
//! thus never added, and never deleted by itself; nothing below a directory that is outside is looked at.

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::pair::{Met, OpenPair, Spot};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::metadata::{FileType, Metadata};
use crate::tree::XattrReader;

/// The paths that count: all but those that rules exclude and, unless asked for, what is mounted in the trees.
#[derive(Debug)]
pub struct Scope {
    rules: RegexSet,
    /// For each rule whether it excludes, or takes back in what one before it excluded.
    excludes: Vec<bool>,
    /// Whether sockets are outside.
    sockets: bool,
    /// What becomes of mount points.
    mounts: Mounts,
}

/// What becomes of what is mounted in the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mounts {
    /// It counts.
    Crossed,
    /// It is outside.
    Outside,
    /// Where it is mounted is told, and nothing more.
    Named,
}

impl Scope {
    /// A scope of rules, of which the last one that fits a path decides.
    ///
    /// A rule is a regular expression for a whole path, relative to the root, with a slash at the end of a directory's, and
    /// whether it excludes. It speaks of bytes; its text is ASCII.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no regular expression, or too large a one.
    pub fn new(rules: &[(String, bool)], sockets: bool, cross_mounts: bool) -> Result<Self> {
        let (texts, excludes): (Vec<_>, Vec<_>) =
            rules.iter().map(|(text, excludes)| (format!("^(?:{text})$"), excludes)).unzip();
        let mut builder = RegexSetBuilder::new(texts);
        let rules = builder.unicode(false).dot_matches_new_line(true).build();
        let rules = rules.map_err(|error| Error::Usage(format!("exclude: {error}")))?;
        Ok(Self { rules, excludes, sockets, mounts: if cross_mounts { Mounts::Crossed } else { Mounts::Outside } })
    }

    /// All of a tree; but of what is mounted in it, unless it is crossed, only where it is.
    pub fn all(cross_mounts: bool) -> Self {
        let mounts = if cross_mounts { Mounts::Crossed } else { Mounts::Named };
        Self { rules: RegexSet::empty(), excludes: Vec::new(), sockets: false, mounts }
    }

    /// Whether of this entry nothing is told but that it is a mount point.
    pub fn only_names(&self, metadata: &Metadata) -> bool {
        self.mounts == Mounts::Named && metadata.mount_root
    }

    /// Whether rules are to be asked, and so a path is needed.
    pub fn needs_paths(&self) -> bool {
        !self.excludes.is_empty()
    }

    /// What is left of what both trees have at `path`.
    pub fn narrow<'a>(
        &self,
        path: &[u8],
        met: Met<'a>,
        pair: &'a OpenPair,
        index: usize,
        xattrs: &mut XattrReader,
        control: &Control,
    ) -> Result<Met<'a>> {
        match met {
            Met::Nothing => Ok(Met::Nothing),
            Met::Gone(name) => {
                let Some(lower) = pair.lower(index, xattrs)? else { return Ok(Met::Nothing) };
                if self.is_mount(&lower) {
                    control.add_mount();
                } else if self.excludes(path, &lower.metadata) {
                    control.add_excluded();
                } else {
                    return Ok(Met::Gone(name));
                }
                Ok(Met::Nothing)
            }
            Met::There { name, upper, lower } => {
                // What is below a mount cannot be known, so that neither side counts.
                if self.is_mount(&upper) || lower.as_ref().is_some_and(|lower| self.is_mount(lower)) {
                    control.add_mount();
                    return Ok(Met::Nothing);
                }
                let is_out = self.excludes(path, &upper.metadata);
                let differs = lower.as_ref().is_none_or(|lower| seem_different(&lower.metadata, &upper.metadata));
                // A socket takes the place of what was there, and says nothing of it.
                let hides = self.sockets && upper.metadata.file_type == FileType::Socket;
                let below = lower.filter(|lower| !hides && !self.excludes(path, &lower.metadata));
                if is_out && differs {
                    control.add_excluded();
                }
                Ok(match below {
                    lower if !is_out => Met::There { name, upper, lower },
                    Some(_) => Met::Gone(name),
                    None => Met::Nothing,
                })
            }
        }
    }

    fn is_mount(&self, spot: &Spot<'_>) -> bool {
        // Of what was mounted when an index was made nothing is in it.
        spot.metadata.mount_root && (self.mounts == Mounts::Outside || spot.is_recorded())
    }

    fn excludes(&self, path: &[u8], metadata: &Metadata) -> bool {
        if self.sockets && metadata.file_type == FileType::Socket {
            return true;
        }
        if self.excludes.is_empty() {
            return false;
        }
        let last = match metadata.is_directory() {
            true => self.rules.matches(&[path, &b"/"[..]].concat()).iter().next_back(),
            false => self.rules.matches(path).iter().next_back(),
        };
        last.is_some_and(|rule| self.excludes[rule])
    }
}

/// Whether two entries differ by what a look at them tells, without their content or attributes.
fn seem_different(lower: &Metadata, upper: &Metadata) -> bool {
    let facts = |m: &Metadata| (m.file_type, m.mode, m.uid, m.gid, m.device);
    let times = |m: &Metadata| (m.size, m.mtime, m.mtime_ns);
    facts(lower) != facts(upper) || !upper.is_directory() && times(lower) != times(upper)
}
