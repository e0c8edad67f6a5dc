"""The messages of containerd's API that are used here, as a table: their fields, with numbers and types.

protobuf makes the classes when the first one is needed, so that nothing is generated and any version of protobuf serves.
A field that is not listed is skipped when a message is read. Spec: containerd, api/services/*/v1/*.proto; the tests
compare the table with the descriptors that containerd publishes (docs/decisions/0086-messages-as-a-table.md).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

# `name=number:type`; the type is string if none is given, and `*` stands for repeated.
SCHEMA: Final = """
containerd.types
 Mount type=1 source=2 target=3 options=4:string*
 Descriptor media_type=1 digest=2 size=3:int64 annotations=5:map

containerd.v1.types
 Process container_id=1 id=2 pid=3:uint32 status=4:int32

containerd.services.version.v1
 VersionResponse version=1 revision=2

containerd.services.introspection.v1
 Plugin type=1 id=2 exports=5:map
 PluginsRequest filters=1:string*
 PluginsResponse plugins=1:Plugin*

containerd.services.namespaces.v1
 Namespace name=1 labels=2:map
 ListNamespacesRequest filter=1
 ListNamespacesResponse namespaces=1:Namespace*

containerd.services.content.v1
 Info digest=1 size=2:int64 created_at=3:time updated_at=4:time labels=5:map
 InfoRequest digest=1
 InfoResponse info=1:Info
 UpdateRequest info=1:Info update_mask=2:mask
 UpdateResponse info=1:Info
 ListContentRequest filters=1:string*
 ListContentResponse info=1:Info*
 DeleteContentRequest digest=1
 ReadContentRequest digest=1 offset=2:int64 size=3:int64
 ReadContentResponse offset=1:int64 data=2:bytes
 Status started_at=1:time updated_at=2:time ref=3 offset=4:int64 total=5:int64 expected=6
 StatusRequest ref=1
 StatusResponse status=1:Status
 ListStatusesRequest filters=1:string*
 ListStatusesResponse statuses=1:Status*
 WriteContentRequest action=1:int32 ref=2 total=3:int64 expected=4 offset=5:int64 data=6:bytes labels=7:map
 WriteContentResponse action=1:int32 offset=4:int64 total=5:int64 digest=6
 AbortRequest ref=1

containerd.services.diff.v1
 ApplyRequest diff=1:containerd.types.Descriptor mounts=2:containerd.types.Mount* sync_fs=4:bool
 ApplyResponse applied=1:containerd.types.Descriptor
 DiffRequest left=1:containerd.types.Mount* right=2:containerd.types.Mount* media_type=3 ref=4 labels=5:map \
  source_date_epoch=6:time
 DiffResponse diff=3:containerd.types.Descriptor

containerd.services.snapshots.v1
 PrepareSnapshotRequest snapshotter=1 key=2 parent=3 labels=4:map
 PrepareSnapshotResponse mounts=1:containerd.types.Mount*
 ViewSnapshotRequest snapshotter=1 key=2 parent=3 labels=4:map
 ViewSnapshotResponse mounts=1:containerd.types.Mount*
 MountsRequest snapshotter=1 key=2
 MountsResponse mounts=1:containerd.types.Mount*
 RemoveSnapshotRequest snapshotter=1 key=2
 CommitSnapshotRequest snapshotter=1 name=2 key=3 labels=4:map
 StatSnapshotRequest snapshotter=1 key=2
 Info name=1 parent=2 kind=3:int32 created_at=4:time updated_at=5:time labels=6:map
 StatSnapshotResponse info=1:Info
 UpdateSnapshotRequest snapshotter=1 info=2:Info update_mask=3:mask
 UpdateSnapshotResponse info=1:Info
 ListSnapshotsRequest snapshotter=1 filters=2:string*
 ListSnapshotsResponse info=1:Info*
 UsageRequest snapshotter=1 key=2
 UsageResponse size=1:int64 inodes=2:int64

containerd.services.leases.v1
 Lease id=1 created_at=2:time labels=3:map
 CreateRequest id=1 labels=3:map
 CreateResponse lease=1:Lease
 DeleteRequest id=1 sync=2:bool
 ListRequest filters=1:string*
 ListResponse leases=1:Lease*
 Resource id=1 type=2
 AddResourceRequest id=1 resource=2:Resource
 ListResourcesRequest id=1
 ListResourcesResponse resources=1:Resource*

containerd.services.images.v1
 Image name=1 labels=2:map target=3:containerd.types.Descriptor created_at=7:time updated_at=8:time
 GetImageRequest name=1
 GetImageResponse image=1:Image
 CreateImageRequest image=1:Image
 CreateImageResponse image=1:Image
 UpdateImageRequest image=1:Image update_mask=2:mask
 UpdateImageResponse image=1:Image
 ListImagesRequest filters=1:string*
 ListImagesResponse images=1:Image*
 DeleteImageRequest name=1 sync=2:bool

containerd.services.containers.v1
 Container.Runtime name=1 options=2:any
 Container id=1 labels=2:map image=3 runtime=4:Container.Runtime spec=5:any snapshotter=6 snapshot_key=7
 GetContainerRequest id=1
 GetContainerResponse container=1:Container
 ListContainersRequest filters=1:string*
 ListContainersResponse containers=1:Container*
 CreateContainerRequest container=1:Container
 CreateContainerResponse container=1:Container

containerd.services.tasks.v1
 GetRequest container_id=1 exec_id=2
 GetResponse process=1:containerd.v1.types.Process
 PauseTaskRequest container_id=1
 ResumeTaskRequest container_id=1
"""

_EMPTY: Final = "google.protobuf.Empty"
METHODS: Final[Mapping[str, tuple[str, str]]] = {
    "version.v1.Version/Version": (_EMPTY, "VersionResponse"),
    "namespaces.v1.Namespaces/List": ("ListNamespacesRequest", "ListNamespacesResponse"),
    "content.v1.Content/Info": ("InfoRequest", "InfoResponse"),
    "content.v1.Content/Update": ("UpdateRequest", "UpdateResponse"),
    "content.v1.Content/List": ("ListContentRequest", "ListContentResponse"),
    "content.v1.Content/Delete": ("DeleteContentRequest", _EMPTY),
    "content.v1.Content/Read": ("ReadContentRequest", "ReadContentResponse"),
    "content.v1.Content/Status": ("StatusRequest", "StatusResponse"),
    "content.v1.Content/ListStatuses": ("ListStatusesRequest", "ListStatusesResponse"),
    "content.v1.Content/Write": ("WriteContentRequest", "WriteContentResponse"),
    "content.v1.Content/Abort": ("AbortRequest", _EMPTY),
    "introspection.v1.Introspection/Plugins": ("PluginsRequest", "PluginsResponse"),
    "diff.v1.Diff/Apply": ("ApplyRequest", "ApplyResponse"),
    "diff.v1.Diff/Diff": ("DiffRequest", "DiffResponse"),
    "snapshots.v1.Snapshots/Prepare": ("PrepareSnapshotRequest", "PrepareSnapshotResponse"),
    "snapshots.v1.Snapshots/View": ("ViewSnapshotRequest", "ViewSnapshotResponse"),
    "snapshots.v1.Snapshots/Mounts": ("MountsRequest", "MountsResponse"),
    "snapshots.v1.Snapshots/Remove": ("RemoveSnapshotRequest", _EMPTY),
    "snapshots.v1.Snapshots/Commit": ("CommitSnapshotRequest", _EMPTY),
    "snapshots.v1.Snapshots/Stat": ("StatSnapshotRequest", "StatSnapshotResponse"),
    "snapshots.v1.Snapshots/Update": ("UpdateSnapshotRequest", "UpdateSnapshotResponse"),
    "snapshots.v1.Snapshots/List": ("ListSnapshotsRequest", "ListSnapshotsResponse"),
    "snapshots.v1.Snapshots/Usage": ("UsageRequest", "UsageResponse"),
    "leases.v1.Leases/Create": ("CreateRequest", "CreateResponse"),
    "leases.v1.Leases/Delete": ("DeleteRequest", _EMPTY),
    "leases.v1.Leases/List": ("ListRequest", "ListResponse"),
    "leases.v1.Leases/AddResource": ("AddResourceRequest", _EMPTY),
    "leases.v1.Leases/ListResources": ("ListResourcesRequest", "ListResourcesResponse"),
    "images.v1.Images/Get": ("GetImageRequest", "GetImageResponse"),
    "images.v1.Images/Create": ("CreateImageRequest", "CreateImageResponse"),
    "images.v1.Images/Update": ("UpdateImageRequest", "UpdateImageResponse"),
    "images.v1.Images/List": ("ListImagesRequest", "ListImagesResponse"),
    "images.v1.Images/Delete": ("DeleteImageRequest", _EMPTY),
    "containers.v1.Containers/Get": ("GetContainerRequest", "GetContainerResponse"),
    "containers.v1.Containers/List": ("ListContainersRequest", "ListContainersResponse"),
    "containers.v1.Containers/Create": ("CreateContainerRequest", "CreateContainerResponse"),
    "tasks.v1.Tasks/Get": ("GetRequest", "GetResponse"),
    "tasks.v1.Tasks/Pause": ("PauseTaskRequest", _EMPTY),
    "tasks.v1.Tasks/Resume": ("ResumeTaskRequest", _EMPTY),
}
"""Request and answer of each method, below `containerd.services.`."""

_SCALARS: Final = {"int64": 3, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13}
_MESSAGE: Final = 11
_WELL_KNOWN: Final = {
    "time": ".google.protobuf.Timestamp",
    "mask": ".google.protobuf.FieldMask",
    "any": ".google.protobuf.Any",
}
_OPTIONAL, _REPEATED = 1, 3


def types_of(method: str) -> tuple[Any, Any]:
    """Return the message classes of request and answer of a method."""
    package = "containerd.services." + method.rpartition(".")[0]
    request, answer = (name if "." in name else f"{package}.{name}" for name in METHODS[method])
    return message(request), message(answer)


@functools.cache
def message(name: str) -> Any:  # noqa: ANN401 - made at run time
    """Return the class of a message by its full name."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(name))


@functools.cache
def pool() -> Any:  # noqa: ANN401 - untyped in protobuf
    """Return the descriptors of all messages of the table, apart from those of other users of protobuf."""
    from google.protobuf import any_pb2, descriptor_pool, empty_pb2, field_mask_pb2, timestamp_pb2

    descriptors = descriptor_pool.DescriptorPool()
    foreign = [module.DESCRIPTOR for module in (any_pb2, empty_pb2, field_mask_pb2, timestamp_pb2)]
    for known in foreign:
        descriptors.AddSerializedFile(known.serialized_pb)
    names = [known.name for known in foreign]
    for section in SCHEMA.strip().split("\n\n"):
        descriptors.AddSerializedFile(_file(section, names).SerializeToString())
        names.append(section.split("\n", 1)[0])
    return descriptors


def _file(section: str, dependencies: list[str]) -> Any:  # noqa: ANN401 - untyped in protobuf
    """Return the descriptor of a file with the messages of one section of the table."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    package, *lines = section.split("\n")
    file = FileDescriptorProto(name=package, package=package, dependency=dependencies, syntax="proto3")
    made: dict[str, Any] = {}
    for line in sorted(lines, key=lambda line: "." in line.split()[0]):
        name, *fields = line.split()
        outer, _, inner = name.partition(".")
        one = made[outer].nested_type.add(name=inner) if inner else file.message_type.add(name=outer)
        made[name] = one
        for text in fields:
            _add_field(one, f".{package}", f".{package}.{name}", text)
    return file


def _add_field(one: Any, package: str, place: str, text: str) -> None:  # noqa: ANN401 - untyped in protobuf
    name, number, kind = (text.replace("=", ":") + ":string").split(":")[:3]
    label = _REPEATED if kind.endswith("*") or kind == "map" else _OPTIONAL
    field = one.field.add(name=name, number=int(number), label=label)
    kind = kind.removesuffix("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = _MESSAGE
    if kind == "map":
        entry = one.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        for number_, key in ((1, "key"), (2, "value")):
            entry.field.add(name=key, number=number_, label=_OPTIONAL, type=_SCALARS["string"])
        field.type_name = f"{place}.{entry.name}"
    else:
        field.type_name = _WELL_KNOWN.get(kind) or (f".{kind}" if kind.startswith("containerd.") else f"{package}.{kind}")
