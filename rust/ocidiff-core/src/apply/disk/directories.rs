//! The directories that a layer works in: what it wrote in them, and what is still to be done to them at the end.
//!
//! A directory is known by its inode, and by its name in the directory above. No path is kept: through symbolic links a
//! short entry can name a directory whose path is much longer. Of a written name only a keyed hash is kept: 8 bytes, for
//! layers of millions of files. (Two names would share one by a chance of about n²/2⁶⁵, which nobody can raise without the
//! key.)

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use rustix::fs::{AtFlags, RawMode, Stat, Timestamps, utimensat};
use rustix::io::{Errno, Result as SystemResult};

use super::handle::WritableDir;
use super::root::ApplyRoot;
use super::upper::Upper;
use crate::control::Control;
use crate::error::Result;
use crate::metadata::InodeKey;

/// The number of the target itself.
const TOP: usize = 0;

/// A directory, from when it was found or made. One that is made under the inode number of a removed one is another node.
#[derive(Debug)]
struct Node {
    key: InodeKey,
    above: usize,
    name: Box<[u8]>,
    /// Nothing in or below it was there before this layer, or is a mark for overlayfs: whiteouts have nothing to remove.
    is_clear: bool,
    /// Lower layers do not show through it.
    is_opaque: bool,
    /// It is marked as holding whiteouts.
    has_origin: bool,
    rest: Option<Rest>,
}

/// The attributes that a directory gets once nothing more is made in it.
#[derive(Debug)]
struct Rest {
    times: Option<Timestamps>,
    mode: Option<RawMode>,
}

/// The directories that one apply has entered or made.
#[derive(Debug)]
pub(super) struct Directories {
    nodes: Vec<Node>,
    /// The node of each inode.
    known: HashMap<InodeKey, usize>,
    /// Names that this layer wrote.
    written: HashSet<u64>,
    hasher: RandomState,
    /// The marks for overlayfs, if the target is an upperdir.
    upper: Option<Upper>,
}

impl Directories {
    /// Begins with the target itself.
    pub fn new(top: &WritableDir, is_empty: bool, upper: Option<Upper>) -> Self {
        let mut new =
            Self { nodes: Vec::new(), known: HashMap::new(), written: HashSet::new(), hasher: RandomState::new(), upper };
        new.add(TOP, b"", top.key(), is_empty);
        new
    }

    /// Returns true if the target is an upperdir.
    pub fn are_upper(&self) -> bool {
        self.upper.is_some()
    }

    /// Returns true if the directory was met before.
    pub fn has(&self, directory: InodeKey) -> bool {
        self.known.contains_key(&directory)
    }

    /// Adds `found`, which is `name` in the directory `above`, unless it is known.
    pub fn enter(&mut self, above: InodeKey, name: &[u8], found: &WritableDir) {
        if self.has(found.key()) {
            return;
        }
        let is_opaque = self.upper.as_ref().is_some_and(|upper| upper.is_opaque(found));
        let above = self.number(above);
        let node = self.add(above, name, found.key(), false);
        node.is_opaque = is_opaque;
    }

    /// Adds a directory that this layer has made to write it or something in it.
    pub fn make(&mut self, above: InodeKey, name: &[u8], made: &WritableDir) {
        let above = self.number(above);
        self.add(above, name, made.key(), true);
    }

    /// Adds a directory that was made in an upperdir for a mark alone. Like the mark, it is not written by this layer.
    pub fn make_for_mark(&mut self, above: InodeKey, name: &[u8], made: &WritableDir) {
        self.hold_mark(above);
        let above = self.number(above);
        self.add(above, name, made.key(), false);
    }

    /// Notes that this layer wrote `name` in `directory`.
    pub fn write(&mut self, directory: InodeKey, name: &[u8]) {
        if self.has(directory) {
            let hash = self.hash(directory, name);
            self.written.insert(hash);
        }
    }

    /// Returns true if this layer wrote `name` in `directory`.
    pub fn has_written(&self, directory: InodeKey, name: &[u8]) -> bool {
        self.has(directory) && self.written.contains(&self.hash(directory, name))
    }

    /// Returns true if nothing can have the name `name` in `directory`: nothing was there, and this layer wrote none.
    pub fn is_free(&self, directory: InodeKey, name: &[u8]) -> bool {
        self.is_clear(directory) && !self.has_written(directory, name)
    }

    /// Returns true if whiteouts have nothing to remove in or below `directory`.
    pub fn is_clear(&self, directory: InodeKey) -> bool {
        self.known.get(&directory).is_some_and(|&number| self.nodes[number].is_clear)
    }

    /// Notes that a whiteout has removed all that it has to in and below `directory`.
    pub fn clear(&mut self, directory: InodeKey) {
        if let Some(&number) = self.known.get(&directory) {
            self.nodes[number].is_clear = true;
        }
    }

    /// Hides all that lower layers have below `directory`, if the target is an upperdir.
    pub fn make_opaque(&mut self, directory: &WritableDir) -> SystemResult<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let number = self.number(directory.key());
        if !self.nodes[number].is_opaque {
            upper.make_opaque(directory)?;
            self.nodes[number].is_opaque = true;
        }
        Ok(())
    }

    /// Hides `name`, which is free, in `parent`, if the target is an upperdir and a lower layer may show there.
    pub fn hide(&mut self, parent: &WritableDir, name: &[u8]) -> SystemResult<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        if self.is_hidden(parent.key()) {
            return Ok(());
        }
        upper.hide(parent, name)?;
        let number = self.number(parent.key());
        if number != TOP && !std::mem::replace(&mut self.nodes[number].has_origin, true) {
            upper.note_whiteouts(parent)?;
        }
        self.hold_mark(parent.key());
        Ok(())
    }

    /// Returns true if `name` in `parent`, whose metadata is `there`, only hides what lower layers have.
    pub fn is_whiteout(&self, parent: &WritableDir, name: &[u8], there: &Stat) -> bool {
        self.upper.as_ref().is_some_and(|upper| upper.is_whiteout(parent, name, there))
    }

    /// Returns true if no lower layer can show in `directory`.
    pub fn is_hidden(&self, directory: InodeKey) -> bool {
        let mut number = self.number(directory);
        while number != TOP && !self.nodes[number].is_opaque {
            number = self.nodes[number].above;
        }
        number != TOP
    }

    /// Notes what an entry says of `directory`, in place of what was noted before.
    pub fn describe(&mut self, directory: InodeKey, times: Timestamps, mode: Option<RawMode>) {
        let number = self.number(directory);
        self.nodes[number].rest = Some(Rest { times: Some(times), mode });
    }

    /// Notes the mode that a directory of a lower layer gets back at the end.
    pub fn restore(&mut self, directory: InodeKey, mode: RawMode) {
        let number = self.number(directory);
        self.nodes[number].rest.get_or_insert(Rest { times: None, mode: Some(mode) });
    }

    /// Does what is left to do, each directory after those in it, since its mode may close the way. Directories that are
    /// gone are left out, and links are never followed. Each directory on the way is entered once.
    pub fn finish(&self, root: &ApplyRoot, control: &Control) -> Result<()> {
        let below = self.ways();
        let failed = |number: usize, op| move |errno| root.failed(op, &self.path(number))(errno);
        let mut way = vec![(TOP, below[TOP].iter())];
        let mut here = root.top().enter(b".").map_err(failed(TOP, "open"))?;
        while let Some((number, pending)) = way.last_mut() {
            control.check()?;
            let number = *number;
            if let Some(&next) = pending.next() {
                let node = &self.nodes[next];
                match here.enter(&node.name) {
                    Ok(found) if found.key() == node.key && self.known[&node.key] == next => {
                        here = found;
                        way.push((next, below[next].iter()));
                    }
                    Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(errno) => return Err(failed(next, "open")(errno)),
                }
                continue;
            }
            way.pop();
            let rest = self.nodes[number].rest.as_ref();
            if let Some(times) = rest.and_then(|rest| rest.times.as_ref()) {
                utimensat(&here, c".", times, AtFlags::empty()).map_err(failed(number, "set times of"))?;
            }
            let above = match way.last() {
                Some(&(above, _)) => {
                    let up = here.enter(b"..").map_err(failed(number, "open"))?;
                    if up.key() != self.nodes[above].key {
                        // Somebody moves directories under us.
                        return Err(failed(number, "open")(Errno::AGAIN));
                    }
                    Some(up)
                }
                None => None,
            };
            if let Some(mode) = rest.and_then(|rest| rest.mode) {
                here.set_mode(mode).map_err(failed(number, "chmod"))?;
            }
            let Some(above) = above else { break };
            here = above;
        }
        Ok(())
    }

    /// For each node, those below it that lead to a directory with something left to do.
    fn ways(&self) -> Vec<Vec<usize>> {
        let mut below = vec![Vec::new(); self.nodes.len()];
        let mut is_on_way = vec![false; self.nodes.len()];
        is_on_way[TOP] = true;
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.rest.is_some()) {
            let mut number = if self.known[&node.key] == number { number } else { TOP };
            while !std::mem::replace(&mut is_on_way[number], true) {
                below[self.nodes[number].above].push(number);
                number = self.nodes[number].above;
            }
        }
        below
    }

    fn add(&mut self, above: usize, name: &[u8], key: InodeKey, is_clear: bool) -> &mut Node {
        let number = self.nodes.len();
        self.known.insert(key, number);
        let node = Node { key, above, name: name.into(), is_clear, is_opaque: false, has_origin: false, rest: None };
        self.nodes.push(node);
        &mut self.nodes[number]
    }

    /// Returns the node of a directory. All that are worked in were entered or made.
    fn number(&self, directory: InodeKey) -> usize {
        self.known.get(&directory).copied().unwrap_or(TOP)
    }

    /// Notes that a mark is in `directory`, which a later whiteout above it has to remove.
    fn hold_mark(&mut self, directory: InodeKey) {
        let mut number = self.number(directory);
        while std::mem::replace(&mut self.nodes[number].is_clear, false) {
            number = self.nodes[number].above;
        }
    }

    /// Returns the path of a node, for messages.
    fn path(&self, mut number: usize) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        while number != TOP {
            names.push(&self.nodes[number].name);
            number = self.nodes[number].above;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn hash(&self, directory: InodeKey, name: &[u8]) -> u64 {
        self.hasher.hash_one((self.number(directory), name))
    }
}
