"""Every sentence of an error of the engines, as templates.

The first ones are those of `Error` in `rust/ocidiff-core/src/error.rs`, the rest those of `Cause` in `cause.rs`, by the same
names. A test compares the two lists, and holds every use to the fields of its template.
"""

from __future__ import annotations

from typing import Final

# What, and where.
MALFORMED_LAYER: Final = "malformed layer at byte {offset} of the tar: {reason}"
MALFORMED_COMPRESSION: Final = "malformed {format}: {reason}"
UNSAFE_ENTRY: Final = "unsafe entry {path}: {reason}"
LIMIT_EXCEEDED: Final = "limit {limit} exceeded{path}, at byte {offset} of the tar: {value} is more than {max}"
SOURCE_CHANGED: Final = "{path}: changed while it was read: {reason}"
UNSUPPORTED: Final = "{path}: {reason}"
UNREPRESENTABLE: Final = "{path}: {reason}"
OVERLAY: Final = "overlay {path}: {reason}"
INDEX_FILE: Final = "index {path}: {reason}"
CANCELLED: Final = "cancelled"

# A tar.
HEADER_WITHOUT_ENTRY: Final = "a header describes no entry"
END_IN_HEADER: Final = "unexpected end inside a header"
END_IN_DATA: Final = "unexpected end inside the data of an entry"
NO_END_MARK: Final = "unexpected end: there is no end mark"
DATA_AFTER_ZEROS: Final = "data after a block of zeros"
WRONG_HEADER_CHECKSUM: Final = "wrong header checksum"
FIELD_IS_NO_NUMBER: Final = "the header field {field} is not a number"
NEGATIVE_HEADER_SIZE: Final = "the size of a header is negative"
NEGATIVE_SIZE: Final = "the size {size} is negative"
UNKNOWN_ENTRY_TYPE: Final = "unknown entry type {flag}"
NOT_PAX_RECORD: Final = "a PAX record is not LENGTH KEY=VALUE"
WRONG_PAX_VALUE: Final = "the PAX record {key} has a wrong value"
OLD_SPARSE_FORM: Final = "sparse file in the old GNU form is not supported: write it with tar --format=pax"
UNKNOWN_SPARSE_FORM: Final = "sparse format {version} is not supported: must be 0.0, 0.1 or 1.0"
SPARSE_IS_NO_FILE: Final = "only a file can be sparse"
SPARSE_SIZE_IS_NO_NUMBER: Final = "the size of the sparse file is not a number"
SPARSE_MAP_IS_NO_NUMBERS: Final = "the sparse map is not a list of numbers"
SPARSE_MAP_MISCOUNTS: Final = "the sparse map has {numbers} numbers for {pieces} pieces"
SPARSE_MAP_TOO_LONG: Final = "the sparse map has more than {most} pieces"
SPARSE_MAP_HAS_NO_END: Final = "the sparse map has no end"
SPARSE_MAP_OVERLAPS: Final = "the pieces of the sparse map overlap or are not in order"
SPARSE_MAP_TOO_FAR: Final = "the sparse map goes to byte {end} of a file of {size} bytes"
SPARSE_MAP_LIES: Final = "the sparse map tells of {told} bytes of data, and there are {stored}"
COMPRESSED_DATA: Final = "{format} data in place of a tar: a layer must be a tar, plain or compressed once with gzip or zstd"
OF_ENTRY: Final = "{name}: {cause}"

# A compressed blob.
UNEXPECTED_END: Final = "unexpected end"
BROKEN_DATA: Final = "broken data"
WINDOW_TOO_LARGE: Final = "the window is larger than 128 MiB"
NO_ZSTD: Final = "zstd: the pure engine needs Python 3.14 or the package zstandard"

# An entry that is applied.
INVALID_WHITEOUT: Final = "invalid whiteout name {name}"
ROOT_IS_NO_DIRECTORY: Final = "the root can only be a directory"
TOO_MANY_LINKS: Final = "too many symbolic links"
NAME_COLLIDES: Final = "the file system takes its name for that of another entry"
OWNER_OUT_OF_RANGE: Final = "owner {uid}:{gid} is out of range"
UNKNOWN_OWNER: Final = "owner {uid}:{gid} is unknown to this user namespace"
DEVICE_OUT_OF_RANGE: Final = "device number {major}:{minor} is out of range"
WHITEOUT_DEVICE: Final = "character device 0:0 is a whiteout of overlayfs"
REFUSED_XATTR: Final = "xattr {name}: {why}"
HARD_LINK: Final = "hard link {path} to {target}: {cause}"
TARGET_IS_DIRECTORY: Final = "it is a directory"
TARGET_IS_MISSING: Final = "it does not exist"
TARGET_IS_SAME_NAME: Final = "it is the same name"
TARGET_BELOW: Final = "a hard link to {target}, which is in a layer below: squash that layer too"
LAYER_CHANGED: Final = "it is another entry than when the layer was read first"
OPAQUE_UPPERDIR: Final = "an upperdir cannot hide all of the layers below it"

# An entry of the tar of an upper directory.
NO_ENTRY_OF_DIRECTORY: Final = "no entry before it is its directory"
NAME_OF_DIRECTORY: Final = "an entry before it is a directory of this name"
NAME_NOT_OF_UPPER: Final = "a name that begins with .wh. is no name of an upper directory of overlayfs"
NOT_READ_FROM_TAR: Final = "{key} is not read from a tar"
OWNER_OF_ROOT_ONLY: Final = "its owner {uid}:{gid} can only be kept by root"

# A tree that is written.
NAME_OF_WHITEOUT: Final = "a name that begins with .wh. would read as a deletion; rename or exclude it"
NAME_OF_WHITEOUT_OF_NOTHING: Final = "this name would read as a deletion of nothing; rename or exclude it"
UNWRITABLE_DEVICE: Final = "character device 0:0 is a whiteout of overlayfs, which no layer can hold; exclude it"
DEVICE_TOO_LARGE: Final = "device number {major}:{minor} does not fit a tar header"
XATTR_NAME_HAS_EQUALS: Final = "xattr {name}: no PAX header can hold a name with '='"
TOO_MANY_XATTRS: Final = "more than 1 MiB of attributes"
OUTSIDE_ID_MAP: Final = "{kind} id {id} is outside the id map"

# A file that changes while it is read.
VANISHED: Final = "it vanished"
BECAME_SHORTER: Final = "it became shorter"
NEVER_RESTED: Final = "it never rested"
REPLACED: Final = "another file took its name"
SIZE_CHANGED: Final = "its size changed"
WRITTEN_TO: Final = "it was written to"
METADATA_CHANGED: Final = "its metadata changed"

# The layers of an overlay.
MIXED_MARKS: Final = "marks of fuse-overlayfs or AUFS stand beside marks of overlayfs: who wrote it cannot be known"
MAY_HAVE_TRUSTED: Final = (
    "attributes trusted.* cannot be read here, and it may have some: run as root, or mount it and compare the trees"
)
UNREADABLE_TRUSTED: Final = "attributes trusted.* cannot be read here: run as root, or mount it and compare the trees"
OWNERS_IN_ATTRIBUTES: Final = "owners and modes are in attributes user.containers.override_stat"
MOUNTED_WITH_INDEX: Final = "it was mounted with index=on, where names can change without being in it"
UNFOLLOWED_REDIRECTS: Final = "it has redirects that the mount does not follow"
SEVERAL_FILE_SYSTEMS: Final = "its layers are on several file systems, so that inode numbers tell no hard links"
NO_CONTENT: Final = "no layer of the overlay has its content"
INVALID_ATTRIBUTE: Final = "an invalid {key}"
OVERLAY_MARK: Final = "{cause} (attributes of overlayfs)"
WRONG_CONTENT_SIZE: Final = "its size is not that of the file with its content"
UNFOLLOWED_REDIRECT: Final = "a redirect that the mount does not follow"
INVALID_REDIRECT: Final = "an invalid redirect"

# The index of a tree.
NOT_INDEX: Final = "it is no index"
TRUNCATED_INDEX: Final = "it is truncated"
INDEX_VERSION: Final = "it has version {version} of the format, and only {known} can be read"
UNKNOWN_HEADER_FLAGS: Final = "its header has unknown flags"
WRONG_INDEX_CHECKSUM: Final = "its checksum is wrong: it is truncated or damaged"
ROOT_OUTSIDE_INDEX: Final = "its root lies outside the file"
FEWER_NAMES: Final = "it has fewer names than it says"
MORE_NAMES: Final = "it has more names than it says"
TRUNCATED_MEANWHILE: Final = "it was truncated meanwhile"
NAMES_OUT_OF_ORDER: Final = "its names are out of order"
BYTES_AFTER_RECORDS: Final = "a directory has more bytes than records"
END_IN_RECORD: Final = "it ends within a record"
IMPOSSIBLE_NAME: Final = "a record has a name that cannot be one"
UNKNOWN_RECORD_TYPE: Final = "a record has an unknown type"
UNKNOWN_RECORD_FLAGS: Final = "a record has unknown flags"
DIRECTORY_OUTSIDE_INDEX: Final = "a directory lies outside the file"
WRONG_RECORD_TIME: Final = "a record has a wrong time"
NUL_IN_TARGET: Final = "a target has a NUL"
WRONG_RECORD_DEVICE: Final = "a record has a wrong device"
DIRECTORY_TOO_LARGE: Final = "an index holds no directory with 4 GiB of entries"

# A call.
INDEX_AS_UPPER: Final = "upper: an index has no contents for a layer"
NOT_A_CHOICE: Final = "{what}: must be {choices}"
