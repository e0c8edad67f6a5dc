//! The changes as one ordered stream.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::pair::DirPair;
use super::pool::{Item, Outcome, Pool, TaskId};
use super::{Ancestor, Change, ChangeKind, Rules, Scope, Subject, TreeSource, Trees, UpperEntry, join};
use crate::cause::Cause;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::tree::overlay::Content;
use crate::tree::{TreeDir, Xattrs};

/// The changes from a lower to an upper tree, in the order of a layer. Dropping it ends and joins its threads.
pub struct Changes {
    pool: Arc<Pool>,
    workers: Vec<JoinHandle<()>>,
    frames: Vec<Frame>,
    failed: bool,
}

/// A directory that is being told.
struct Frame {
    node: Rc<Ancestor>,
    /// The rest of the current slice.
    items: std::vec::IntoIter<Item>,
    directory: Option<Arc<TreeDir>>,
    more: VecDeque<TaskId>,
}

impl Changes {
    /// Starts to compare; without a scope all paths count.
    ///
    /// # Errors
    /// [`Error::Io`] when a thread cannot be started or the root cannot be read.
    pub fn start(
        trees: Trees,
        rules: Rules,
        scope: Option<Arc<Scope>>,
        threads: usize,
        control: Arc<Control>,
    ) -> Result<Self> {
        let (upper, pair) = match trees {
            Trees::Plain { lower, upper } => {
                let directory = match [Some(&upper), lower.as_ref()] {
                    [Some(TreeSource::Directory(directory)), _] | [_, Some(TreeSource::Directory(directory))] => {
                        directory.clone()
                    }
                    // Two indexes ask the system for nothing.
                    _ => TreeDir::open_root("/".as_ref())?,
                };
                (directory, DirPair::of_roots(upper, lower))
            }
            Trees::Overlay(overlay) => {
                if !rules.device_in_links && !overlay.on_one_device()? {
                    let reason = Cause::SeveralFileSystems;
                    return Err(Error::Overlay { path: overlay.upper().path_of(c""), reason });
                }
                let (upper, lower) = overlay.roots()?;
                (overlay.upper().clone(), DirPair::Overlay { overlay, upper, lower: Some(lower) })
            }
        };
        let metadata = upper.metadata(c".")?;
        let root = Ancestor {
            parent: None,
            path: Vec::new(),
            entry: UpperEntry { metadata, xattrs: Xattrs::default(), target: None },
            written: Cell::new(u32::MAX),
        };
        let pool = Arc::new(Pool::new(pair, rules, scope, control));
        let frame = Frame { node: Rc::new(root), items: Vec::new().into_iter(), directory: None, more: VecDeque::from([0]) };
        let mut changes = Self { pool, workers: Vec::new(), frames: vec![frame], failed: false };
        for number in 0..threads {
            let (pool, probe) = (changes.pool.clone(), upper.clone());
            let worker = std::thread::Builder::new()
                .name(format!("walk-{number}"))
                .spawn(move || pool.serve(&probe))
                .map_err(|source| Error::Io { op: "start thread", path: "walk".into(), source })?;
            changes.workers.push(worker);
        }
        Ok(changes)
    }

    fn step(&mut self) -> Result<Option<Change>> {
        loop {
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            let Some(item) = frame.items.next() else {
                let Some(id) = frame.more.pop_front() else {
                    self.frames.pop();
                    continue;
                };
                frame.directory = None;
                let listing = self.pool.take(id)?;
                frame.items = listing.items.into_iter();
                frame.directory = listing.directory;
                // Only the first slice of a directory knows of the others.
                frame.more.extend(listing.more);
                continue;
            };
            let (parent, path) = (frame.node.clone(), join(&frame.node.path, &item.name));
            let explanation = item.explanation;
            match item.outcome {
                Outcome::Gone => {
                    let (kind, subject) = (ChangeKind::Delete, Subject::Gone);
                    return Ok(Some(Change { kind, path, parent, subject, explanation }));
                }
                Outcome::Leaf(kind, entry, None) => {
                    let directory = frame.directory.clone();
                    let subject = Subject::Leaf { entry, directory, name: item.name, content: None };
                    return Ok(Some(Change { kind, path, parent, subject, explanation }));
                }
                Outcome::Leaf(kind, entry, Some(content)) => {
                    let Content { directory, path: name, metadata } = *content;
                    let subject =
                        Subject::Leaf { entry, directory: Some(directory), name, content: Some(Box::new(metadata)) };
                    return Ok(Some(Change { kind, path, parent, subject, explanation }));
                }
                Outcome::Directory(kind, entry, id) => {
                    let node =
                        Rc::new(Ancestor { parent: Some(parent.clone()), path: path.clone(), entry, written: Cell::new(0) });
                    self.frames.push(Frame {
                        node: node.clone(),
                        items: Vec::new().into_iter(),
                        directory: None,
                        more: VecDeque::from([id]),
                    });
                    if let Some(kind) = kind {
                        let subject = Subject::Directory(node);
                        return Ok(Some(Change { kind, path, parent, subject, explanation }));
                    }
                }
            }
        }
    }
}

impl Iterator for Changes {
    type Item = Result<Change>;

    /// Returns the next change. Nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.pool.close();
        for worker in self.workers.drain(..) {
            // A worker that panicked has closed the pool, which the consumer has been told.
            let _ = worker.join();
        }
    }
}
