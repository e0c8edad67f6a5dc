//! What is done to directories once nothing more is made in them: times, and modes that would have been in the way.

use std::collections::HashMap;

use rustix::fs::{AtFlags, RawMode, Timestamps, utimensat};

use super::root::{Granted, Root};
use crate::control::Control;
use crate::error::Result;
use crate::metadata::InodeKey;

/// What is still to be done to one directory.
#[derive(Debug)]
struct Rest {
    path: Box<[u8]>,
    /// Its identity: what stands at the path in the end may be another.
    key: InodeKey,
    times: Option<Timestamps>,
    mode: Option<RawMode>,
}

/// The directories that this layer describes or works in.
#[derive(Debug, Default)]
pub(super) struct Directories {
    rests: Vec<Rest>,
    last: HashMap<InodeKey, usize>,
}

impl Directories {
    /// Notes what an entry says of the directory at `path`; it takes the place of what was noted before.
    pub fn describe(&mut self, path: Vec<u8>, key: InodeKey, times: Timestamps, mode: Option<RawMode>) {
        if let Some(old) = self.last.insert(key, self.rests.len()) {
            self.rests[old].times = None;
            self.rests[old].mode = None;
        }
        self.rests.push(Rest { path: path.into(), key, times: Some(times), mode });
    }

    /// Drops what was noted of a directory that is gone: one that was made now may have got its inode number.
    pub fn forget(&mut self, key: InodeKey) {
        if let Some(old) = self.last.remove(&key) {
            self.rests[old].times = None;
            self.rests[old].mode = None;
        }
    }

    /// Notes the mode of a directory of a lower layer that it gets back in the end.
    pub fn restore(&mut self, granted: Granted) {
        if !self.last.contains_key(&granted.key) {
            self.last.insert(granted.key, self.rests.len());
            self.rests.push(Rest { path: granted.path.into(), key: granted.key, times: None, mode: Some(granted.mode) });
        }
    }

    /// Does it all. Directories that are gone are left out; links are never taken for directories.
    pub fn finish(mut self, root: &mut Root, control: &Control) -> Result<()> {
        for rest in &self.rests {
            control.check()?;
            if let Some(times) = &rest.times
                && let Some(directory) = find(root, rest)?
            {
                let done = utimensat(&*directory, c".", times, AtFlags::empty());
                done.map_err(root.failed("set times of", &rest.path))?;
            }
        }
        // The deepest first: a mode may close the way.
        self.rests.retain(|rest| rest.mode.is_some());
        self.rests.sort_by_cached_key(|rest| std::cmp::Reverse(rest.path.split(|&byte| byte == b'/').count()));
        for rest in &self.rests {
            control.check()?;
            if let Some(mode) = rest.mode
                && let Some(directory) = find(root, rest)?
            {
                directory.set_mode(mode).map_err(root.failed("chmod", &rest.path))?;
            }
        }
        Ok(())
    }
}

fn find(root: &mut Root, rest: &Rest) -> Result<Option<std::sync::Arc<super::handle::Directory>>> {
    Ok(root.find_real(&rest.path)?.filter(|directory| directory.key() == rest.key))
}
