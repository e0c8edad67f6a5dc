//! Resolves a name of an overlay through its layers as the kernel does (fs/overlayfs/namei.c, `ovl_lookup`).

use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::{Folder, Format, Overlay, Part, Place, overrides};
use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::metadata::{FileType, Metadata};
use crate::rules::linux::MAX_NAME_BYTES;
use crate::tree::{TreeDir, XattrReader, c_string};
use crate::whiteout;

/// An entry of an overlay.
#[derive(Debug)]
pub struct Found {
    /// Its layer, from the top.
    pub layer: usize,
    /// The directory of that layer which has it.
    pub directory: Arc<TreeDir>,
    /// Its name there, which a redirect may have changed.
    pub name: CString,
    /// The result of lstat.
    pub metadata: Metadata,
    /// For a directory, what is merged.
    pub place: Option<Place>,
    /// The location of its content, if it is not in `directory` under `name`.
    pub content: Option<Content>,
    path: Vec<u8>,
}

/// The location of the content of a file.
#[derive(Debug, Clone)]
pub struct Content {
    /// The directory of a layer.
    pub directory: Arc<TreeDir>,
    /// The path below it, without symbolic links.
    pub path: CString,
    /// The result of lstat for the file that holds the content.
    pub metadata: Metadata,
}

impl Found {
    /// Returns true if both are one file or directory, with the same directories merged.
    pub fn is_same_inode_of_same_layer(&self, other: &Self) -> bool {
        (self.layer, &self.path, &self.place) == (other.layer, &other.path, &other.place)
    }
}

/// An entry of one layer.
struct Probe {
    metadata: Metadata,
    whiteout: bool,
    opaque: bool,
    metacopy: bool,
    redirect: Option<Vec<u8>>,
}

/// The attributes that mark what overlayfs wrote.
struct Keys {
    opaque: &'static CStr,
    redirect: &'static CStr,
    metacopy: &'static CStr,
    whiteout: &'static CStr,
}

impl Keys {
    const TRUSTED: Self = Self {
        opaque: c"trusted.overlay.opaque",
        redirect: c"trusted.overlay.redirect",
        metacopy: c"trusted.overlay.metacopy",
        whiteout: c"trusted.overlay.whiteout",
    };
    const USER: Self = Self {
        opaque: c"user.overlay.opaque",
        redirect: c"user.overlay.redirect",
        metacopy: c"user.overlay.metacopy",
        whiteout: c"user.overlay.whiteout",
    };
}

/// The state of a lookup on its way down the layers.
struct Search {
    /// The name in the parent directory, or an absolute path in the layer once a redirect said so.
    name: Vec<u8>,
    is_directory: bool,
    /// The file that was found last has its content further down.
    metacopy: bool,
    stop: bool,
}

/// A name found in one layer.
struct Hit {
    part: Part,
    directory: Arc<TreeDir>,
    name: CString,
    metadata: Metadata,
}

impl Search {
    fn is_absolute(&self) -> bool {
        self.name.starts_with(b"/")
    }

    /// Decides if the entry of a layer at the end of the name belongs to the answer, and how the lookup goes on.
    fn accept(&mut self, probe: &Probe) -> bool {
        let is_directory = probe.metadata.is_directory();
        let is_masked = if is_directory { self.metacopy } else { self.is_directory };
        if is_masked || self.metacopy && probe.metadata.file_type != FileType::File {
            self.stop = true;
            return false;
        }
        if is_directory {
            self.is_directory = true;
            self.stop |= probe.opaque;
        } else {
            self.metacopy = probe.metacopy;
            self.stop = !probe.metacopy;
        }
        true
    }
}

impl Overlay {
    /// Returns the entry that the overlay shows under `name` of `folder`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for marks that the kernel refuses too, [`Error::Io`].
    pub fn lookup(&self, folder: &Folder, name: &CStr, xattrs: &mut XattrReader) -> Result<Option<Found>> {
        let mut search = Search { name: name.to_bytes().to_vec(), is_directory: false, metacopy: false, stop: false };
        let mut hits = Vec::new();
        let mut parts = folder.parts.iter();
        let mut next_layer = 0;
        while !search.stop {
            let hit = if search.is_absolute() {
                if next_layer == self.layers.len() {
                    break;
                }
                next_layer += 1;
                self.walk(next_layer - 1, &mut search, xattrs)?
            } else {
                let Some((part, directory)) = parts.next() else { break };
                next_layer = part.layer + 1;
                self.step(part, directory, &mut search, xattrs)?
            };
            hits.extend(hit);
        }
        let Some(last) = hits.last() else { return Ok(None) };
        let content = if search.metacopy {
            Some(self.data_of(&search, &hits)?)
        } else if last.metadata.file_type == FileType::File
            && (last.part.layer > 0 || self.overrides[last.part.layer].is_some())
        {
            let (directory, path) = (self.layers[last.part.layer].clone(), c_string(&last.part.path));
            Some(Content { directory, path, metadata: last.metadata })
        } else {
            None
        };
        let place = search.is_directory.then(|| Place { parts: hits.iter().map(|hit| hit.part.clone()).collect() });
        let Hit { part: Part { layer, path }, directory, name, metadata } = hits.swap_remove(0);
        if content.as_ref().is_some_and(|content| content.metadata.size != metadata.size) {
            return Err(refused(&directory, &name, Cause::WrongContentSize));
        }
        let told = match self.overrides[layer] {
            Some(key) => overrides::overridden(&directory, &name, key, metadata, xattrs)?,
            None => None,
        };
        Ok(Some(Found { layer, directory, name, metadata: told.unwrap_or(metadata), place, content, path }))
    }

    /// Looks for a plain name in one directory of one layer.
    fn step(
        &self,
        part: &Part,
        directory: &Arc<TreeDir>,
        search: &mut Search,
        xattrs: &mut XattrReader,
    ) -> Result<Option<Hit>> {
        let name = c_string(&search.name);
        let Some(probe) = self.probe(part.layer, directory, &name, xattrs)? else { return Ok(None) };
        if probe.whiteout {
            search.stop = true;
            return Ok(None);
        }
        if !search.accept(&probe) {
            return Ok(None);
        }
        if let Some(redirect) = probe.redirect.filter(|_| !probe.opaque) {
            search.name = redirect;
        }
        let path = join(&part.path, name.to_bytes());
        let part = Part { layer: part.layer, path };
        Ok(Some(Hit { part, directory: directory.clone(), name, metadata: probe.metadata }))
    }

    /// Looks for an absolute path in one layer. What stands on the way may redirect, or hide, what is in the layers below.
    fn walk(&self, layer: usize, search: &mut Search, xattrs: &mut XattrReader) -> Result<Option<Hit>> {
        let path = search.name.clone();
        let names: Vec<&[u8]> = path[1..].split(|&byte| byte == b'/').collect();
        let mut directory = self.layers[layer].clone();
        let mut above = Vec::new();
        for (index, &bytes) in names.iter().enumerate() {
            let name = c_string(bytes);
            let Some(probe) = self.probe(layer, &directory, &name, xattrs)? else { return Ok(None) };
            let is_last = index + 1 == names.len();
            if probe.whiteout || !is_last && !probe.metadata.is_directory() {
                search.stop = true;
                return Ok(None);
            }
            if is_last && !search.accept(&probe) {
                return Ok(None);
            }
            if !is_last && probe.opaque {
                search.stop = true;
            }
            if let Some(redirect) = probe.redirect.filter(|_| !probe.opaque) {
                search.name = match redirect.starts_with(b"/") {
                    // It speaks of the whole tree, whatever was opaque on the way.
                    true => {
                        search.stop = false;
                        redirect
                    }
                    false => [&b"/"[..], &join(&above, &redirect)].concat(),
                };
                for rest in &names[index + 1..] {
                    search.name.push(b'/');
                    search.name.extend_from_slice(rest);
                }
            }
            let path = join(&above, bytes);
            if is_last {
                return Ok(Some(Hit { part: Part { layer, path }, directory, name, metadata: probe.metadata }));
            }
            directory = directory.open_child(&name)?;
            above = path;
        }
        Ok(None)
    }

    /// Returns the entry that one layer has under a plain name of one of its directories.
    fn probe(&self, layer: usize, directory: &TreeDir, name: &CStr, xattrs: &mut XattrReader) -> Result<Option<Probe>> {
        let (mut whiteout, mut opaque, mut metacopy, mut redirect) = (false, false, false, None);
        if self.format == Format::Names {
            if name.to_bytes().starts_with(whiteout::PREFIX) {
                return Ok(None);
            }
            // It hides what the same layer has under the name, too. Long names have none.
            let hiding = [whiteout::PREFIX, name.to_bytes()].concat();
            let hidden = if hiding.len() > MAX_NAME_BYTES { None } else { directory.find(&c_string(&hiding))? };
            if let Some(metadata) = hidden {
                return Ok(Some(Probe { metadata, whiteout: true, opaque, metacopy, redirect }));
            }
        }
        let Some(metadata) = directory.find(name)? else { return Ok(None) };
        match metadata.file_type {
            FileType::CharDevice => whiteout = metadata.is_overlay_whiteout(),
            FileType::File if self.format == Format::Names => {}
            FileType::File => {
                whiteout = metadata.size == 0 && xattrs.raw(directory, name, self.keys().whiteout)?.is_some();
                metacopy = !whiteout && xattrs.raw(directory, name, self.keys().metacopy)?.is_some();
                if metacopy {
                    redirect = self.redirect(directory, name, xattrs)?;
                }
            }
            FileType::Directory if !self.is_bottom(layer) => {
                opaque = self.is_opaque(directory, name, xattrs)?;
                if !opaque && self.format != Format::Names {
                    redirect = self.redirect(directory, name, xattrs)?;
                    if redirect.is_some() && !self.redirects {
                        return Err(refused(directory, name, Cause::UnfollowedRedirect));
                    }
                }
            }
            _ => {}
        }
        Ok(Some(Probe { metadata, whiteout, opaque, metacopy, redirect }))
    }

    /// Returns true if a directory hides what lower layers have under its name.
    pub(super) fn is_opaque(&self, directory: &TreeDir, name: &CStr, xattrs: &mut XattrReader) -> Result<bool> {
        if self.format != Format::Names {
            return Ok(xattrs.raw(directory, name, self.keys().opaque)? == Some(b"y"));
        }
        let marker = [name.to_bytes(), b"/", whiteout::OPAQUE].concat();
        if directory.find(&c_string(&marker))?.is_some() {
            return Ok(true);
        }
        for key in [c"user.fuseoverlayfs.opaque", c"trusted.overlay.opaque", c"user.overlay.opaque"] {
            if xattrs.raw(directory, name, key)? == Some(b"y") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn redirect(&self, directory: &TreeDir, name: &CStr, xattrs: &mut XattrReader) -> Result<Option<Vec<u8>>> {
        let Some(value) = xattrs.raw(directory, name, self.keys().redirect)? else { return Ok(None) };
        // Old kernels counted the NUL.
        let value = value.strip_suffix(b"\0").unwrap_or(value);
        let mut names = value.strip_prefix(b"/").unwrap_or(value).split(|&byte| byte == b'/');
        let is_clean = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
        if !names.all(is_clean) || !value.starts_with(b"/") && value.contains(&b'/') {
            return Err(refused(directory, name, Cause::InvalidRedirect));
        }
        Ok(Some(value.to_vec()))
    }

    /// Returns the content of a file whose last copy in the layers has none: in a layer for data alone.
    fn data_of(&self, search: &Search, hits: &[Hit]) -> Result<Content> {
        let layers = if search.is_absolute() { &self.data[..] } else { &[] };
        let path = c_string(search.name.strip_prefix(b"/").unwrap_or(&search.name));
        for layer in layers {
            let metadata = match layer.find_below(&path)? {
                Some(metadata) if metadata.file_type == FileType::File => metadata,
                _ => continue,
            };
            return Ok(Content { directory: layer.clone(), path, metadata });
        }
        let path = hits.first().map(|top| top.directory.path_of(&top.name)).unwrap_or_default();
        Err(Error::Unsupported { path, reason: Cause::NoContent })
    }

    fn is_bottom(&self, layer: usize) -> bool {
        layer + 1 == self.layers.len()
    }

    fn keys(&self) -> &'static Keys {
        if self.format == Format::User { &Keys::USER } else { &Keys::TRUSTED }
    }
}

/// Returns the error for a mark that the kernel refuses too.
fn refused(directory: &TreeDir, name: &CStr, cause: Cause) -> Error {
    Error::Unsupported { path: directory.path_of(name), reason: Cause::OverlayMark { cause: Box::new(cause) } }
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}
