"""Images: names in containerd, which are whole references: `docker.io/library/app:v2`, or any other text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.convert import descriptor_fields, descriptor_of
from ocidiff.errors import AlreadyExistsError, DocumentError, NotFoundError
from ocidiff.image.reference import Reference
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.index import REF_NAME, Entry


class ContainerdImages:
    """An `ImageStore`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def place(self) -> str:
        """See `ImageStore.place`."""
        return f"containerd's namespace {self._channel.namespace!r}"

    def list(self) -> Sequence[Entry]:
        """See `ImageStore.list`."""
        return [_entry(image) for image in self._channel.call("images.v1.Images/List").images]

    def entry(self, name: str) -> Entry:
        """See `ImageStore.entry`."""
        try:
            return _entry(self._channel.call("images.v1.Images/Get", name=name).image)
        except NotFoundError:
            raise NotFoundError(f"no image {name!r} in {self.place}") from None

    def spelling(self, name: str) -> str:
        """See `ImageStore.spelling`. Others look for a name of containerd as it stands, so it is kept as given."""
        return Reference.parse(name).stored_name

    def put(self, name: str, target: Descriptor) -> None:
        """See `ImageStore.put`. The labels of a name stay."""
        self._channel.call("content.v1.Content/Info", digest=target.digest)
        lease = self._channel.lease
        if lease is not None:
            # Fails if the lease has ended, since its blobs may be gone.
            self._channel.call("leases.v1.Leases/ListResources", id=lease.id)
        image = {"name": name, "target": descriptor_fields(target)}
        try:
            self._channel.call("images.v1.Images/Create", image=image)
        except AlreadyExistsError:
            self._channel.call("images.v1.Images/Update", image=image, update_mask={"paths": ["target"]})

    def put_all(self, targets: Mapping[str, Descriptor]) -> None:
        """See `ImageStore.put_all`."""
        for name, target in targets.items():
            self.put(name, target)

    def drop(self, entry: Entry) -> None:
        """See `ImageStore.drop`."""
        with suppress(NotFoundError):
            self._channel.call("images.v1.Images/Delete", name=entry.name)


def _entry(image: Any) -> Entry:  # noqa: ANN401 - a message
    try:
        target = descriptor_of(image.target)
    except DocumentError as error:
        return Entry("", image.name, image.target.digest, None, str(error))
    return Entry.of(replace(target, annotations={**target.annotations, REF_NAME: image.name}))
