"""Writes the hostile layers, and their indexes, as seeds of fuzzing, a directory for each target: `seeds.py DIR`."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import cases

from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import select_engine
from ocidiff.layer.pure.index_format import CHECKSUM_BYTES
from support import verbs

# `make fuzz` gives longer inputs to no target.
MAX_BYTES = 16384


def seeds() -> Iterator[tuple[str, bytes]]:
    """The target and the input of each seed."""
    for case in cases.ALL:
        blob = case.layer()
        is_gzip = blob.startswith(b"\x1f\x8b")
        if is_gzip or case in cases.BLOBS:
            yield "gzip_blob", blob
            continue
        yield "tar_read", blob
        yield "apply_into_root", blob
        packer = zlib.compressobj(wbits=31)
        yield "gzip_blob", packer.compress(blob) + packer.flush()
        with contextlib.suppress(OcidiffError, OSError):
            yield "index_read", verbs.index_of_layers(select_engine("pure"), [blob])[0][:-CHECKSUM_BYTES]
        yield "zstd_blob", subprocess.run(["zstd", "-qc"], input=blob, stdout=subprocess.PIPE, check=True).stdout
    here = Path(__file__).parent
    yield "index_read", verbs.index(select_engine("pure"), here, sha256=True, stamps=True)[:-CHECKSUM_BYTES]
    for case in cases.WHITEOUTS:
        with tarfile.open(fileobj=io.BytesIO(case.layer())) as archive:
            for name in archive.getnames():
                yield "whiteout_name", name.rpartition("/")[2].encode()


def main() -> None:
    corpus = Path(sys.argv[1])
    for target, data in seeds():
        if len(data) <= MAX_BYTES:
            place = corpus / target
            place.mkdir(parents=True, exist_ok=True)
            (place / sha256(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
