//! The workers that read both trees ahead of their consumer.
//!
//! A task is a directory, or a slice of a large one. Tasks carry their position in the order of the layer, and the first
//! pending one is always taken first, so the workers stay close ahead of the consumer and little waits in memory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::pair::{DirPair, Located, NameLookup, OpenDirPair};
use super::patterns::States;
use super::same::Comparer;
use super::{ChangeKind, Explanation, Rules, Scope, UpperEntry, join};
use crate::control::{ATTEMPTS, Control};
use crate::error::{Error, Result};
use crate::metadata::FileType;
use crate::tree::overlay::Content;
use crate::tree::{TreeDir, XattrReader, Xattrs};

/// Names of one directory that one task handles. The workers share a larger directory.
const SLICE_NAMES: usize = 1024;
/// Entries that the workers run ahead by. Each listing is charged too, because it may hold a file descriptor.
const AHEAD_ENTRIES: usize = 16 << 10;
const LISTING_CHARGE: usize = 64;

/// Names a task; the consumer asks for listings by it.
pub type TaskId = u64;
/// The position of a task in the order of the layer: slice and place at each depth.
type Position = Vec<u32>;

/// A name of a directory, and its outcome.
pub struct Item {
    pub name: CString,
    pub outcome: Outcome,
    pub explanation: Option<Box<Explanation>>,
}

/// The outcome of a comparison.
pub enum Outcome {
    /// Only lower has it.
    Gone,
    /// Something that is no directory: added, modified, or the same with more names; and where its content is, unless in
    /// the listed directory.
    Leaf(ChangeKind, UpperEntry, Option<Box<Content>>),
    /// A directory, what happened to it (`None`: it is the same), and the task that lists it.
    Directory(Option<ChangeKind>, UpperEntry, TaskId),
}

/// The kind of the change (`None` for no change), the entry of upper, and the explanation. `None` if nothing is listed.
type Seen = Option<(Option<ChangeKind>, UpperEntry, Option<Box<Explanation>>)>;

/// The result of a task.
pub struct Listing {
    /// Names in order, without those that are not listed.
    pub items: Vec<Item>,
    /// The upper directory, kept open while it has content to read.
    pub directory: Option<Arc<TreeDir>>,
    /// Further slices of the same directory, in order.
    pub more: Vec<TaskId>,
}

enum Work {
    /// Two directories, and their path where the scope needs it.
    Open(DirPair, Vec<u8>),
    Slice(Arc<Opened>, usize),
}

/// Two open directories, and their path and the states of the patterns there, where the scope needs them.
struct Opened {
    pair: OpenDirPair,
    path: Vec<u8>,
    states: States,
}

struct Task {
    id: TaskId,
    work: Work,
}

#[derive(Default)]
struct Queue {
    pending: BTreeMap<Position, Task>,
    done: HashMap<TaskId, Result<Listing>>,
    next_id: TaskId,
    ahead: usize,
    /// Workers that wait for something to do. Waking nobody is a system call too.
    idle: usize,
    consumer_waits: bool,
    closed: bool,
}

/// The queue that workers and consumer share.
pub struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
    news: Condvar,
    rules: Rules,
    scope: Option<Arc<Scope>>,
    control: Arc<Control>,
}

impl Pool {
    /// Returns a pool whose first task, number 0, lists the two roots.
    pub fn new(root: DirPair, rules: Rules, scope: Option<Arc<Scope>>, control: Arc<Control>) -> Self {
        let pool = Self { queue: Mutex::default(), work: Condvar::new(), news: Condvar::new(), rules, scope, control };
        pool.lock().push(vec![], Work::Open(root, vec![]));
        pool
    }

    /// Takes the listing of `id`, waiting for it.
    pub fn take(&self, id: TaskId) -> Result<Listing> {
        let mut queue = self.lock();
        loop {
            if let Some(done) = queue.done.remove(&id) {
                queue.consumer_waits = false;
                let before = queue.ahead;
                queue.ahead = before.saturating_sub(done.as_ref().map_or(0, Listing::charge));
                // Waking threads that find nothing to do costs more than a small directory.
                if before >= AHEAD_ENTRIES && queue.ahead < AHEAD_ENTRIES {
                    self.work.notify_all();
                }
                return done;
            }
            if queue.closed {
                return Err(Error::Cancelled);
            }
            queue.consumer_waits = true;
            if queue.ahead >= AHEAD_ENTRIES && queue.idle > 0 {
                self.work.notify_one();
            }
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all workers soon.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.news.notify_all();
    }

    /// Runs a worker: takes the first task, until the pool is closed.
    pub fn serve(&self, probe: &TreeDir) {
        let _guard = CloseOnPanic(self);
        let mut worker =
            Worker { pool: self, comparer: Comparer::new(self.rules), xattrs: XattrReader::new(self.rules.xattrs, probe) };
        while let Some((position, task)) = self.next_task() {
            let result = self.control.check().and_then(|()| worker.run(&position, task.work));
            let mut queue = self.lock();
            queue.ahead += result.as_ref().map_or(0, Listing::charge);
            queue.done.insert(task.id, result);
            self.news.notify_one();
        }
    }

    fn next_task(&self) -> Option<(Position, Task)> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if queue.may_run()
                && let Some(first) = queue.pending.pop_first()
            {
                return Some(first);
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn add_tasks(&self, works: impl Iterator<Item = (Position, Work)>) -> Vec<TaskId> {
        let mut queue = self.lock();
        let ids: Vec<_> = works.map(|(position, work)| queue.push(position, work)).collect();
        let wanted = if queue.may_run() { ids.len().min(queue.idle) } else { 0 };
        (0..wanted).for_each(|_| self.work.notify_one());
        ids
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Returns true if a task may begin: little waits in memory, or the consumer waits.
    fn may_run(&self) -> bool {
        self.ahead < AHEAD_ENTRIES || self.consumer_waits
    }

    fn push(&mut self, position: Position, work: Work) -> TaskId {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(position, Task { id, work });
        id
    }
}

impl Listing {
    fn charge(&self) -> usize {
        LISTING_CHARGE + self.items.len()
    }
}

/// A worker that dies must not leave the consumer waiting.
struct CloseOnPanic<'a>(&'a Pool);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

struct Worker<'a> {
    pool: &'a Pool,
    comparer: Comparer,
    xattrs: XattrReader,
}

impl Worker<'_> {
    fn run(&mut self, position: &[u32], work: Work) -> Result<Listing> {
        match work {
            Work::Slice(opened, number) => self.list(position, &opened, number),
            Work::Open(pair, path) => {
                let pair = pair.open(self.pool.rules.retry_on_change, &self.pool.control)?;
                let slices = pair.len().div_ceil(SLICE_NAMES);
                let states = self.pool.scope.as_ref().map_or_else(Vec::new, |scope| scope.enter(&path));
                let opened = Arc::new(Opened { pair, path, states });
                let rest = (1..slices).map(|number| (place(position, number), Work::Slice(opened.clone(), number)));
                let more = self.pool.add_tasks(rest);
                let first = self.list(&place(position, 0), &opened, 0)?;
                Ok(Listing { more, ..first })
            }
        }
    }

    fn list(&mut self, position: &[u32], opened: &Opened, number: usize) -> Result<Listing> {
        let Opened { pair, path, .. } = opened;
        let start = number * SLICE_NAMES;
        let end = pair.len().min(start + SLICE_NAMES);
        let mut items = Vec::new();
        let mut children = Vec::new();
        let mut has_content = false;
        for index in start..end {
            self.pool.control.check()?;
            let (found, seen) = self.lookup(opened, index)?;
            let (name, upper, lower) = match found {
                NameLookup::Nothing => continue,
                NameLookup::Gone(name) => {
                    let explanation = self.explain_gone(pair, index)?;
                    items.push(Item { name: name.to_owned(), outcome: Outcome::Gone, explanation });
                    continue;
                }
                NameLookup::Found { name, upper, lower } => (name, upper, lower),
            };
            if self.has_only_name(&upper) {
                let entry = UpperEntry { metadata: upper.metadata, xattrs: Xattrs::default(), target: None };
                let outcome = Outcome::Leaf(ChangeKind::Add, entry, None);
                items.push(Item { name: name.to_owned(), outcome, explanation: None });
                continue;
            }
            let Some((kind, entry, explanation)) = seen else { continue };
            let outcome = if entry.metadata.is_directory() {
                children.push((
                    place(position, items.len()),
                    Work::Open(DirPair::of(upper, lower), self.path_below(path, name)),
                ));
                // The task's number is known once all children are handed over together.
                Outcome::Directory(kind, entry, 0)
            } else {
                has_content |= entry.metadata.file_type == FileType::File && entry.metadata.size > 0;
                Outcome::Leaf(kind.unwrap_or(ChangeKind::Unmodified), entry, upper.content().cloned().map(Box::new))
            };
            items.push(Item { name: name.to_owned(), outcome, explanation });
        }
        self.pool.control.add_entries((end - start) as u64);
        let ids = self.pool.add_tasks(children.into_iter());
        let unnumbered = items.iter_mut().filter_map(|item| match &mut item.outcome {
            Outcome::Directory(_, _, id) => Some(id),
            _ => None,
        });
        unnumbered.zip(ids).for_each(|(place, id)| *place = id);
        Ok(Listing { items, directory: pair.directory().filter(|_| has_content).cloned(), more: Vec::new() })
    }

    /// Looks a name up in both trees, within the scope, and compares the entries. Repeats that while the name changes, if
    /// `retry_on_change` is set.
    fn lookup<'b>(&mut self, opened: &'b Opened, index: usize) -> Result<(NameLookup<'b>, Seen)> {
        let (retry, control) = (self.pool.rules.retry_on_change, &self.pool.control);
        let mut attempt = 0;
        loop {
            let found = self.narrowed(opened, index).and_then(|found| match &found {
                NameLookup::Found { upper, lower, .. } if !self.has_only_name(upper) => {
                    self.look(upper, lower.as_ref()).map(|seen| (found, seen))
                }
                _ => Ok((found, None)),
            });
            match found {
                Err(error) if retry && error.is_change() && attempt < ATTEMPTS => {
                    if attempt == 0 {
                        control.add_retried();
                    }
                    attempt += 1;
                    control.pause(attempt)?;
                }
                found => return found,
            }
        }
    }

    /// Looks a name up in both trees, within the scope.
    fn narrowed<'b>(&mut self, Opened { pair, states, .. }: &'b Opened, index: usize) -> Result<NameLookup<'b>> {
        let Pool { rules, scope, control, .. } = self.pool;
        let found = pair.lookup(index, rules.retry_on_change, &mut self.xattrs, control)?;
        match scope {
            Some(scope) => scope.narrow(states, found, pair, index, &mut self.xattrs, control),
            None => Ok(found),
        }
    }

    /// Returns the path of `name` in the directory at `path`; empty if the scope needs no paths.
    fn path_below(&self, path: &[u8], name: &CStr) -> Vec<u8> {
        if self.pool.scope.as_ref().is_some_and(|scope| scope.needs_paths()) { join(path, name) } else { Vec::new() }
    }

    /// Returns true if only its name and kind count.
    fn has_only_name(&self, upper: &Located<'_>) -> bool {
        self.pool.scope.as_ref().is_some_and(|scope| scope.only_names(&upper.metadata))
    }

    /// Compares a name that upper has; `None` if nothing is listed.
    fn look(&mut self, upper: &Located<'_>, lower: Option<&Located<'_>>) -> Result<Seen> {
        let metadata = upper.metadata;
        let side = upper.side();
        side.check_ids()?;
        let (mut kind, mut xattrs) = (Some(ChangeKind::Add), None);
        if let Some(lower) = lower {
            let same;
            (same, xattrs) = self.comparer.same(lower.side(), side, &mut self.xattrs, &self.pool.control)?;
            kind = (!same).then_some(ChangeKind::Modify);
        }
        if kind.is_none() && !metadata.is_directory() && metadata.links == 1 {
            return Ok(None);
        }
        let xattrs = match xattrs {
            Some(read) => read,
            None => side.xattrs(&mut self.xattrs)?,
        };
        let is_link = metadata.file_type == FileType::Symlink;
        let target = is_link.then(|| side.target()).transpose()?;
        let explanation = self.explain(kind, upper, lower)?;
        Ok(Some((kind, UpperEntry { metadata, xattrs, target }, explanation)))
    }
}

impl Worker<'_> {
    fn explain(
        &mut self,
        kind: Option<ChangeKind>,
        upper: &Located<'_>,
        lower: Option<&Located<'_>>,
    ) -> Result<Option<Box<Explanation>>> {
        if !self.pool.rules.explain || kind.is_none() {
            return Ok(None);
        }
        let explanation = match lower {
            None => Explanation::of_new(&upper.metadata),
            Some(lower) => Explanation::of_both(&mut self.comparer, lower, upper, &mut self.xattrs, &self.pool.control)?,
        };
        Ok(Some(Box::new(explanation)))
    }

    fn explain_gone(&mut self, opened: &OpenDirPair, index: usize) -> Result<Option<Box<Explanation>>> {
        if !self.pool.rules.explain {
            return Ok(None);
        }
        let Some(lower) = opened.lower(index, &mut self.xattrs)? else { return Ok(None) };
        Ok(Some(Box::new(Explanation::of_gone(&lower, &mut self.xattrs, &self.pool.control)?)))
    }
}

/// Returns the position `number` below `position`.
fn place(position: &[u32], number: usize) -> Position {
    let mut place = Vec::with_capacity(position.len() + 1);
    place.extend_from_slice(position);
    place.push(number as u32);
    place
}
