//! Why something is refused: every sentence that an error of [`crate::Error`] ends with.
//!
//! `python/ocidiff/layer/pure/sentences.py` has the same list, and a test compares the two. What comes from a layer or a tree
//! is escaped before it gets here.

/// The reason of an error. Its text says what each variant means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each is its documentation")]
pub enum Cause {
    // A tar.
    #[error("a header describes no entry")]
    HeaderWithoutEntry,
    #[error("unexpected end inside a header")]
    EndInHeader,
    #[error("unexpected end inside the data of an entry")]
    EndInData,
    #[error("unexpected end: there is no end mark")]
    NoEndMark,
    #[error("data after a block of zeros")]
    DataAfterZeros,
    #[error("wrong header checksum")]
    WrongHeaderChecksum,
    #[error("the header field {field} is not a number")]
    FieldIsNoNumber { field: &'static str },
    #[error("the size of a header is negative")]
    NegativeHeaderSize,
    #[error("the size {size} is negative")]
    NegativeSize { size: i64 },
    #[error("unknown entry type {flag}")]
    UnknownEntryType { flag: String },
    #[error("a PAX record is not LENGTH KEY=VALUE")]
    NotPaxRecord,
    #[error("the PAX record {key} has a wrong value")]
    WrongPaxValue { key: String },
    #[error("sparse file in the old GNU form is not supported: write it with tar --format=pax")]
    OldSparseForm,
    #[error("sparse format {version} is not supported: must be 0.0, 0.1 or 1.0")]
    UnknownSparseForm { version: String },
    #[error("only a file can be sparse")]
    SparseIsNoFile,
    #[error("the size of the sparse file is not a number")]
    SparseSizeIsNoNumber,
    #[error("the sparse map is not a list of numbers")]
    SparseMapIsNoNumbers,
    #[error("the sparse map has {numbers} numbers for {pieces} pieces")]
    SparseMapMiscounts { numbers: u64, pieces: u64 },
    #[error("the sparse map has more than {most} pieces")]
    SparseMapTooLong { most: usize },
    #[error("the sparse map has no end")]
    SparseMapHasNoEnd,
    #[error("the pieces of the sparse map overlap or are not in order")]
    SparseMapOverlaps,
    #[error("the sparse map goes to byte {end} of a file of {size} bytes")]
    SparseMapTooFar { end: u64, size: u64 },
    #[error("the sparse map tells of {told} bytes of data, and there are {stored}")]
    SparseMapLies { told: u64, stored: u64 },
    #[error("{format} data in place of a tar: a layer must be a tar, plain or compressed once with gzip or zstd")]
    CompressedData { format: &'static str },
    #[error("{name}: {cause}")]
    OfEntry { name: String, cause: Box<Self> },

    // A compressed blob.
    #[error("unexpected end")]
    UnexpectedEnd,
    #[error("broken data")]
    BrokenData,
    #[error("the window is larger than 128 MiB")]
    WindowTooLarge,

    // An entry that is applied.
    #[error("invalid whiteout name {name}")]
    InvalidWhiteout { name: String },
    #[error("the root can only be a directory")]
    RootIsNoDirectory,
    #[error("too many symbolic links")]
    TooManyLinks,
    #[error("the file system takes its name for that of another entry")]
    NameCollides,
    #[error("owner {uid}:{gid} is out of range")]
    OwnerOutOfRange { uid: i64, gid: i64 },
    #[error("owner {uid}:{gid} is unknown to this user namespace")]
    UnknownOwner { uid: u32, gid: u32 },
    #[error("device number {major}:{minor} is out of range")]
    DeviceOutOfRange { major: i64, minor: i64 },
    #[error("character device 0:0 is a whiteout of overlayfs")]
    WhiteoutDevice,
    #[error("xattr {name}: {why}")]
    RefusedXattr { name: String, why: String },
    #[error("hard link {path} to {target}: {cause}")]
    HardLink { path: String, target: String, cause: Box<Self> },
    #[error("it is a directory")]
    TargetIsDirectory,
    #[error("it does not exist")]
    TargetIsMissing,
    #[error("it is the same name")]
    TargetIsSameName,
    #[error("a hard link to {target}, which is in a layer below: squash that layer too")]
    TargetBelow { target: String },
    #[error("it is another entry than when the layer was read first")]
    LayerChanged,
    #[error("an upperdir cannot hide all of the layers below it")]
    OpaqueUpperdir,

    // An entry of the tar of an upper directory.
    #[error("no entry before it is its directory")]
    NoEntryOfDirectory,
    #[error("an entry before it is a directory of this name")]
    NameOfDirectory,
    #[error("a name that begins with .wh. is no name of an upper directory of overlayfs")]
    NameNotOfUpper,
    #[error("{key} is not read from a tar")]
    NotReadFromTar { key: String },
    #[error("its owner {uid}:{gid} can only be kept by root")]
    OwnerOfRootOnly { uid: u32, gid: u32 },

    // A tree that is written.
    #[error("a name that begins with .wh. would read as a deletion; rename or exclude it")]
    NameOfWhiteout,
    #[error("this name would read as a deletion of nothing; rename or exclude it")]
    NameOfWhiteoutOfNothing,
    #[error("character device 0:0 is a whiteout of overlayfs, which no layer can hold; exclude it")]
    UnwritableDevice,
    #[error("device number {major}:{minor} does not fit a tar header")]
    DeviceTooLarge { major: u32, minor: u32 },
    #[error("xattr {name}: no PAX header can hold a name with '='")]
    XattrNameHasEquals { name: String },
    #[error("more than 1 MiB of attributes")]
    TooManyXattrs,
    #[error("{kind} id {id} is outside the id map")]
    OutsideIdMap { kind: &'static str, id: u32 },
    #[error("unknown kind of file")]
    UnknownKind,

    // A file that changes while it is read.
    #[error("it vanished")]
    Vanished,
    #[error("it became shorter")]
    BecameShorter,
    #[error("it never rested")]
    NeverRested,
    #[error("another file took its name")]
    Replaced,
    #[error("its size changed")]
    SizeChanged,
    #[error("it was written to")]
    WrittenTo,
    #[error("its metadata changed")]
    MetadataChanged,

    // The layers of an overlay.
    #[error("marks of fuse-overlayfs or AUFS stand beside marks of overlayfs: who wrote it cannot be known")]
    MixedMarks,
    #[error(
        "attributes trusted.* cannot be read here, and it may have some: run as root, or mount it and compare the trees"
    )]
    MayHaveTrusted,
    #[error("attributes trusted.* cannot be read here: run as root, or mount it and compare the trees")]
    UnreadableTrusted,
    #[error("owners and modes are in attributes user.containers.override_stat")]
    OwnersInAttributes,
    #[error("it was mounted with index=on, where names can change without being in it")]
    MountedWithIndex,
    #[error("it has redirects that the mount does not follow")]
    UnfollowedRedirects,
    #[error("its layers are on several file systems, so that inode numbers tell no hard links")]
    SeveralFileSystems,
    #[error("openat2: {why}")]
    NoOpenat2 { why: String },
    #[error("no layer of the overlay has its content")]
    NoContent,
    #[error("an invalid {key}")]
    InvalidAttribute { key: String },
    #[error("{cause} (attributes of overlayfs)")]
    OverlayMark { cause: Box<Self> },
    #[error("its size is not that of the file with its content")]
    WrongContentSize,
    #[error("a redirect that the mount does not follow")]
    UnfollowedRedirect,
    #[error("an invalid redirect")]
    InvalidRedirect,

    // The index of a tree.
    #[error("it is no index")]
    NotIndex,
    #[error("it is truncated")]
    TruncatedIndex,
    #[error("it has version {version} of the format, and only {known} can be read")]
    IndexVersion { version: u16, known: u16 },
    #[error("its header has unknown flags")]
    UnknownHeaderFlags,
    #[error("its checksum is wrong: it is truncated or damaged")]
    WrongIndexChecksum,
    #[error("its root lies outside the file")]
    RootOutsideIndex,
    #[error("it has fewer names than it says")]
    FewerNames,
    #[error("it has more names than it says")]
    MoreNames,
    #[error("it was truncated meanwhile")]
    TruncatedMeanwhile,
    #[error("its names are out of order")]
    NamesOutOfOrder,
    #[error("a directory has more bytes than records")]
    BytesAfterRecords,
    #[error("it ends within a record")]
    EndInRecord,
    #[error("a record has a name that cannot be one")]
    ImpossibleName,
    #[error("a record has an unknown type")]
    UnknownRecordType,
    #[error("a record has unknown flags")]
    UnknownRecordFlags,
    #[error("a directory lies outside the file")]
    DirectoryOutsideIndex,
    #[error("a record has a wrong time")]
    WrongRecordTime,
    #[error("a target has a NUL")]
    NulInTarget,
    #[error("a record has a wrong device")]
    WrongRecordDevice,
    #[error("an index holds no directory with 4 GiB of entries")]
    DirectoryTooLarge,

    // A call.
    #[error("upper: an index has no contents for a layer")]
    IndexAsUpper,
    #[error("patterns: rows of several lengths")]
    UnevenPatterns,
    #[error("memory: this compression takes {needed} MiB or more, {allowed} MiB are allowed")]
    TooLittleMemory { needed: u64, allowed: u64 },
    #[error("not a sha256 digest: {text}")]
    NotDigest { text: String },
    #[error("{what}: must be {choices}")]
    NotAChoice { what: String, choices: &'static str },
}

impl Cause {
    /// Returns this cause with the name of the entry in front.
    pub(crate) fn of(self, name: &[u8]) -> Self {
        Self::OfEntry { name: escaped(name), cause: Box::new(self) }
    }
}

/// Bytes of a layer or a tree for a message: one line, control and non-UTF-8 bytes escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
