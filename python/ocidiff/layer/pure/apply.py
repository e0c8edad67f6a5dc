"""Apply: performs each entry of a layer on a directory. Spec: layer-semantics 11.

Law: whiteouts remove what lower layers left, never what the same layer wrote, wherever they stand in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Self

from ocidiff.layer.apply_options import ApplyOptions, Destination
from ocidiff.layer.pure import sentences, tar
from ocidiff.layer.pure.directories import show, split
from ocidiff.layer.pure.faults import unsafe, unsupported
from ocidiff.layer.pure.files import FileWriter
from ocidiff.layer.pure.folders import Folder, Place
from ocidiff.layer.pure.note import SET_IDS, STAND_IN_MODE, Note, parse_note
from ocidiff.layer.pure.plan import Do, Link, check, describes, plan
from ocidiff.layer.pure.root import OWNER_ALL, Root
from ocidiff.layer.pure.tar_reader import Entry, Hole
from ocidiff.layer.pure.upper import Upper
from ocidiff.layer.pure.upper_tar import Said, UpperTar
from ocidiff.layer.pure.whiteout import PSEUDO_LINKS, Opaque, Removal
from ocidiff.layer.xattrs import NOTE, class_of, is_for_root

_NODES: Final = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_XATTR_FAULTS: Final = (
    errno.EINVAL,
    errno.ERANGE,
    errno.E2BIG,
    errno.ENOSPC,
)  # what the kernel says of the attribute, not of the file


class Applier:
    """Applies entries in stream order.

    Attributes:
        has_root: True once an entry has said what the root itself is.
        whiteouts: How many entries were whiteouts.
        skipped: What could not be kept, by reason.
        recorded: How much of that is noted in attributes.
    """

    def __init__(self, root: Root, options: ApplyOptions) -> None:
        self._root = root
        self._same_owner = options.restores_owners
        self._may_lack_devices = not self._same_owner or _is_in_user_namespace()
        self._upper = None if options.destination is Destination.DIRECTORY else Upper(root, options.destination)
        self._upper_tar = UpperTar() if options.is_upper else None
        self._left_out: set[Place] = set()  # devices that could not be made
        self._aside = Place(root.top, PSEUDO_LINKS)
        self._has_aside = False  # the directory of files that were kept aside is there
        self._notes_all = not self._same_owner and (os.geteuid(), os.getegid()) != (0, 0)
        if self._notes_all:
            root.note_owners()
        # Notes of layers before are wrong once an entry can keep what it says.
        self._has_notes = self._has_stand_ins = root.is_marked or not self._same_owner
        self._is_marked = False  # the root says that there are notes
        self.has_root = False
        self.whiteouts = 0
        self.recorded = 0
        self.skipped: Counter[str] = Counter()

    def apply(self, entry: Entry, data: Iterable[bytes | Hole]) -> None:
        """Do what `entry` says.

        Raises:
            MalformedLayerError: The entry contradicts the format.
            UnsafeLayerError: It asks for what is never done.
            OSError: The system refuses it.
        """
        path = entry.path
        if self._upper_tar is not None:
            self._apply_of_upper(path, self._upper_tar.read(entry), data)
            return
        match plan(entry):
            case Do.DESCRIBE_ROOT | Do.MAKE:
                self._create(path, entry, data)
            case Do.KEEP_ASIDE if self._keeps_aside():
                self._create(path, entry, data)
            case Do.KEEP_ASIDE | Do.LEAVE_OUT:
                self.skipped["aufs"] += 1
            case Removal() | Opaque() as whiteout:
                self._hide(whiteout, split(path)[0])

    def _apply_of_upper(self, path: bytes, said: Said, data: Iterable[bytes | Hole]) -> None:
        """Do what an entry of an upper directory says."""
        parent, name = split(path)
        if said.entry is None:
            self._hide(Removal(name), parent)
            return
        self._create(path, said.entry, data)
        if said.is_opaque:
            self._hide(Opaque(), path)

    def _create(self, path: bytes, entry: Entry, data: Iterable[bytes | Hole]) -> None:
        if path:
            parent, name = split(path)
            self._write(Place(self._root.make(parent, self._hide_below), name), entry, data)
            return
        check(entry)
        self._set_metadata(self._root.top.place, entry)
        self.has_root = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_aside:
            # The first error is the one that counts.
            with suppress(OSError):
                self._root.clean_up(self._aside)

    def finish(self) -> None:
        """Remove what was kept aside, and give the directories their final modes and times, children first."""
        for path in [] if self._upper_tar is None else self._upper_tar.finish():
            self._hide(Opaque(), path)
        if self._has_aside:
            self._root.remove(self._aside)
            self._has_aside = False
        for folder in self._root.top.children_first():
            if folder.mode is not None and folder.mode & OWNER_ALL != OWNER_ALL:
                self._root.set_mode(folder.place, folder.mode)
            if folder.times is not None:
                self._root.set_times(folder.place, *folder.times)

    def _keeps_aside(self) -> bool:
        """Return true if files are kept for hard links: a directory of their name that was there before is none of ours."""
        self._has_aside = self._has_aside or self._root.lstat(self._aside) is None
        return self._has_aside

    def _hide(self, whiteout: Removal | Opaque, parent: bytes) -> None:
        """Remove what lower layers left. Where there is no directory there is nothing to remove, and none is made.

        Only an upperdir gets one for it, as it may be in a lower layer.
        """
        self.whiteouts += 1
        folder = self._root.find(parent)
        if folder is None and self._upper is not None:
            folder = self._root.make_for_mark(parent, self._upper.is_hidden)
        if folder is None:
            return
        if isinstance(whiteout, Removal):
            place = Place(folder, whiteout.name)
            self._root.remove(place, spare=True)
            if self._upper is not None:
                self._upper.hide(place)
            return
        if self._upper is not None:
            self._upper.check_opaque(folder)
        self._root.empty(folder, spare=True)
        self._hide_below(folder)

    def _hide_below(self, folder: Folder) -> None:
        """Hide what lower layers have in a directory of an upperdir."""
        if self._upper is not None:
            self._upper.make_opaque(folder)

    def _write(self, place: Place, entry: Entry, data: Iterable[bytes | Hole]) -> None:
        check(entry)
        if not self._is_marked and self._notes(entry):
            self._root.mark()
            self._is_marked = True
        target = self._link_target(place, entry) if entry.type == tar.HARD_LINK else None
        self._left_out.discard(place)
        if target in self._left_out:
            self._leave_out(place)
            return
        there = self._root.lstat(place)
        is_merged = there is not None and stat.S_ISDIR(there.st_mode) and entry.type == tar.DIRECTORY
        if there is not None and self._is_collision(place):
            raise unsafe(entry.path, sentences.NAME_COLLIDES)
        if there is not None and not is_merged:
            self._root.remove(place)
        if entry.type == tar.DIRECTORY:
            if not is_merged:
                made = self._root.make_directory(place)
                if there is not None:
                    self._hide_below(made)
        elif entry.type == tar.REGULAR:
            self._write_file(place, data)
        elif target is not None:
            self._root.make_hard_link(place, target)
        elif entry.type == tar.SYMLINK:
            self._root.make_symlink(place, entry.linkname)
        elif not self._make_node(place, entry):
            self._make_stand_in(place, entry)
            return
        place.folder.written.add(place.name)
        if describes(entry):
            self._set_metadata(place, entry)

    def _is_collision(self, place: Place) -> bool:
        """True if something has a name that nothing can have: the file system takes two names for one."""
        return place.folder.is_clear and place.name not in place.folder.written

    def _link_target(self, place: Place, entry: Entry) -> Place:
        """Return the existing target of a hard link. Spec: layer-semantics 11.4."""
        link = Link(entry)
        parent, name = split(link.target)
        folder = self._root.find(parent)
        if folder is None:
            raise link.is_missing()
        target = Place(folder, name)
        there = self._root.lstat(target)
        if target in self._left_out:
            return target
        if there is not None and self._upper is not None and self._upper.is_whiteout(target, there):
            there = None
        link.check(is_directory=None if there is None else stat.S_ISDIR(there.st_mode), is_same=target == place)
        return target

    def _write_file(self, place: Place, data: Iterable[bytes | Hole]) -> None:
        file = self._root.make_file(place)
        try:
            writer = FileWriter(file)
            for piece in data:
                writer.write(piece)
            writer.finish()
        except OSError as error:
            raise self._root.error(error, place) from error
        finally:
            os.close(file)

    def _make_node(self, place: Place, entry: Entry) -> bool:
        """Make a device or FIFO; false when it is left out."""
        device = 0 if entry.type == tar.FIFO else os.makedev(*entry.device)
        try:
            self._root.make_node(place, _NODES[entry.type], device)
        except PermissionError:
            if entry.type == tar.FIFO or not self._may_lack_devices:
                raise
            return False
        return True

    def _make_stand_in(self, place: Place, entry: Entry) -> None:
        """Make an empty file that notes which device it stands for; nothing where that cannot be noted."""
        self.skipped["devices"] += 1
        os.close(self._root.make_file(place))
        for key in self._root.xattrs(place):
            if class_of(key).is_stored():  # of default ACLs of the parent
                self._root.remove_xattr(place, key)
        self.skipped["xattrs"] += len(entry.xattrs)
        self.skipped["owners"] += not self._keeps(entry)
        if not self._root.note(place, Note(entry.uid, entry.gid, entry.mode, _NODES[entry.type], entry.device)):
            if self._upper_tar is not None:
                raise self._root.error(PermissionError(errno.EPERM, os.strerror(errno.EPERM)), place)
            self._root.remove(place)
            self._left_out.add(place)
            return
        self.recorded += 1
        self._root.mark()
        self._has_stand_ins = True
        self._root.set_mode(place, STAND_IN_MODE)
        self._root.set_times(place, entry.atime_ns, entry.mtime_ns)
        place.folder.written.add(place.name)

    def _is_stand_in(self, place: Place, entry: Entry, facts: os.stat_result) -> bool:
        """Note what a hard link says of a file that stands for a device; false for any other file."""
        if not (self._has_stand_ins and entry.type == tar.HARD_LINK and stat.S_ISREG(facts.st_mode) and not facts.st_size):
            return False
        note = parse_note(self._root.get_xattr(place, NOTE))
        if note is None or not note.kind:
            return False
        self._root.note(place, replace(note, uid=entry.uid, gid=entry.gid, mode=entry.mode))
        self._root.set_mode(place, STAND_IN_MODE)
        self._root.set_times(place, entry.atime_ns, entry.mtime_ns)
        return True

    def _leave_out(self, place: Place) -> None:
        """Count a device, or one more name of it, that could not be made."""
        self.skipped["devices"] += 1
        self._left_out.add(place)

    def _set_metadata(self, place: Place, entry: Entry) -> None:
        """Owner, xattrs, mode, times: in this order, since a new owner clears capabilities and set-id bits."""
        facts = self._root.lstat(place)
        if facts is None:
            raise self._root.error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), place)
        if self._must_open(entry, facts):
            self._root.set_mode(place, OWNER_ALL)  # attributes can only be set by who may write
        if self._is_stand_in(place, entry, facts):
            return
        mode = entry.mode
        if self._same_owner and (entry.uid, entry.gid) != (facts.st_uid, facts.st_gid):
            self._set_owner(place, entry)  # else it would clear what a link entry may not repeat
        is_root = place == self._root.top.place
        if not self._same_owner and entry.type in (tar.HARD_LINK, tar.DIRECTORY) and not is_root:
            self._take_over(place, facts)
        can_have_note = stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)
        if not self._notes(entry):
            if self._has_notes and is_root:
                self._root.note(place, Note(entry.uid, entry.gid, mode))  # it says that there are others
            elif self._has_notes and can_have_note and entry.type in (tar.HARD_LINK, tar.DIRECTORY):
                self._root.remove_xattr(place, NOTE, missing_ok=True)
        else:
            is_noted = can_have_note and self._root.note(place, Note(entry.uid, entry.gid, mode))
            # A reader without root takes files without a note for root's.
            if self._upper_tar is not None and not is_noted and (entry.uid, entry.gid) != (0, 0):
                raise unsupported(entry.path, sentences.OWNER_OF_ROOT_ONLY.format(uid=entry.uid, gid=entry.gid))
            lacks = not self._keeps(entry)
            self.skipped["owners"] += lacks
            self.recorded += lacks and is_noted
            if lacks:
                mode &= ~SET_IDS  # they would lend the rights of somebody else
        self._set_xattrs(place, entry, facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            folder = self._root.enter(place, facts)
            folder.mode, folder.times = mode, (entry.atime_ns, entry.mtime_ns)
            self._root.set_mode(place, mode | OWNER_ALL)  # children are still to come
            return
        if not stat.S_ISLNK(facts.st_mode):
            self._root.set_mode(place, mode)
        self._root.set_times(place, entry.atime_ns, entry.mtime_ns)

    def _keeps(self, entry: Entry) -> bool:
        return self._same_owner or (entry.uid, entry.gid) == (os.geteuid(), os.getegid())

    def _take_over(self, place: Place, facts: os.stat_result) -> None:
        """Give what an earlier layer gave another owner the one that this process gives to what it makes.

        Else the owner would seem to have been changed after the note.
        """
        identity = os.geteuid(), os.getegid()
        if (facts.st_uid, facts.st_gid) != identity:
            with suppress(PermissionError):
                self._root.set_owner(place, *identity)

    def _notes(self, entry: Entry) -> bool:
        """True if the owner of an entry is noted.

        That of a user is noted too who has it anyway: what that user makes later has no note, and is root's to those who see
        the user as root.
        """
        return not self._keeps(entry) or self._notes_all

    def _set_owner(self, place: Place, entry: Entry) -> None:
        try:
            self._root.set_owner(place, entry.uid, entry.gid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise unsafe(entry.path, sentences.UNKNOWN_OWNER.format(uid=entry.uid, gid=entry.gid)) from error

    def _must_open(self, entry: Entry, facts: os.stat_result) -> bool:
        """True for a file or directory of ours that its mode keeps us from writing to, and that an earlier entry made."""
        is_ours = os.geteuid() != 0 and facts.st_uid == os.geteuid()
        is_old = entry.type in (tar.HARD_LINK, tar.DIRECTORY) and (
            stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)
        )
        return is_ours and is_old and facts.st_mode & 0o600 != 0o600

    def _set_xattrs(self, place: Place, entry: Entry, file_mode: int) -> None:
        """The entry's xattrs replace those that a layer can carry.

        Others come from a directory that was there, or from default ACLs of the parent. A link entry may leave out those of
        its inode.
        """
        if entry.type not in (tar.HARD_LINK, tar.SYMLINK):
            for key in self._root.xattrs(place):
                if class_of(key).is_stored() and key not in entry.xattrs:
                    self._root.remove_xattr(place, key)
        # ACLs last: one may forbid its owner to set more attributes.
        order = sorted(entry.xattrs.items(), key=lambda item: (class_of(item[0]).ids == "acl", item[0]))
        for name, value in order:
            key = name if self._upper is None else self._upper.escape(name)
            if key == name and not class_of(key).is_accepted:
                self.skipped["xattrs"] += 1
                continue
            try:
                self._root.set_xattr(place, key, value)
            except OSError as error:
                if error.errno in _XATTR_FAULTS:
                    raise unsafe(entry.path, sentences.REFUSED_XATTR.format(name=show(key), why=error.strerror)) from error
                if not self._may_lack(key, error.errno, file_mode):
                    raise
                self.skipped["xattrs"] += 1

    def _may_lack(self, key: bytes, cause: int | None, file_mode: int) -> bool:
        if self._upper_tar is not None and class_of(key).is_stored():
            return False
        if cause == errno.EPERM:
            return (is_for_root(key) and not self._same_owner) or not class_of(key).fits(file_mode)
        return cause == errno.ENOTSUP


def _is_in_user_namespace() -> bool:
    """Return True if even root may make no devices; False if that is unknown."""
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False
