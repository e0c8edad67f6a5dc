"""`ocidiff commit-pod`: the containers of a pod of Kubernetes become images, from a job on the pod's node."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Final

import click

import ocidiff
from ocidiff.cli.cache import cache_options
from ocidiff.cli.places import REGISTRY
from ocidiff.cli.registry import registry_options
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.errors import (
    ChangeTooLargeError,
    DeniedError,
    DocumentError,
    NotFoundError,
    OcidiffError,
    OverlayError,
    UnrepresentableError,
    UnsupportedError,
    UsageError,
    reason,
)

if TYPE_CHECKING:
    from ocidiff.containerd.channel import Channel
    from ocidiff.containerd.pods import PodContainer

_RETRY: Final = 1
_GIVE_UP: Final = 4
_TERMINATION_LOG: Final = "/dev/termination-log"
# A kubelet keeps so much of the file. Spec: Kubernetes, "Determine the reason for pod failure".
_MAX_MESSAGE_BYTES: Final = 4096
# The same call would fail in the same way.
_LASTING: Final = (
    *(UsageError, NotFoundError, UnsupportedError, UnrepresentableError, DocumentError),
    *(ChangeTooLargeError, DeniedError, OverlayError),
)


@click.command("commit-pod", epilog="Example: ocidiff commit-pod web-0 shop app:registry.example.org/shop/app:saved")
@click.argument("pod")
@click.argument("pod_namespace", metavar="NAMESPACE")
@click.argument("containers", metavar="CONTAINER:IMAGE…", nargs=-1, required=True)
@click.option(
    "--push/--no-push",
    default=True,
    help="Send images to the registries that they name, or keep them in containerd.  [default: push]",
)
@click.option("--resume", is_flag=True, help="Commit nothing: let containers run on that a killed job has left paused.")
@click.option(
    "--result",
    metavar="FILE",
    type=click.Path(),
    help=f"Write the result as JSON to FILE too.  [default: {_TERMINATION_LOG}, if it exists]",
)
@functools.partial(registry_options, writing=False)
@cache_options
@common("address", "namespace", "verbose")
@pass_settings
def command(
    settings: Settings,
    pod: str,
    pod_namespace: str,
    containers: tuple[str, ...],
    push: bool,
    resume: bool,
    registry: ocidiff.Registry,
    result: str | None,
) -> None:
    """Commit containers of a pod, and push the images.

    Run it on the pod's node. Each container is paused while its tree is read. Prints the images as JSON. Exit status: 1 if
    another attempt may succeed, 4 if none will.
    """
    wanted = [_parsed(text, resume=resume) for text in containers]
    try:
        document: dict[str, object] = {
            "containers": _run(settings, pod, pod_namespace, wanted, push=push, resume=resume, registry=registry)
        }
        status = 0
    except (OcidiffError, OSError) as error:
        status = _GIVE_UP if isinstance(error, _LASTING) else _RETRY
        document = {"error": reason(error), "retry": status == _RETRY}
        complain(f"commit-pod: {reason(error)}")
    text = json.dumps(document)
    where = result or (_TERMINATION_LOG if os.access(_TERMINATION_LOG, os.W_OK) else None)
    if where is not None:
        with open(where, "w", encoding="utf-8") as file:
            file.write(text[:_MAX_MESSAGE_BYTES])
    emit(text)
    click.get_current_context().exit(status)


def _parsed(text: str, *, resume: bool) -> tuple[str, str]:
    name, _, image = text.partition(":")
    if not name or not (image or resume):
        raise click.UsageError(f"{text!r}: must be CONTAINER:IMAGE")
    return name, image


def _run(
    settings: Settings,
    pod: str,
    pod_namespace: str,
    wanted: list[tuple[str, str]],
    *,
    push: bool,
    resume: bool,
    registry: ocidiff.Registry,
) -> list[dict[str, object]]:
    from ocidiff.containerd import pods
    from ocidiff.containerd.channel import DEFAULT_ADDRESS, Channel

    address = settings.address or os.environ.get("CONTAINERD_ADDRESS") or DEFAULT_ADDRESS
    namespace = settings.namespace or os.environ.get("CONTAINERD_NAMESPACE") or pods.NAMESPACE
    channel = Channel.open(address, namespace)
    try:
        found = [pods.container_of(channel, pod, pod_namespace, name) for name, _ in wanted]
        if resume:
            for one in found:
                pods.resume(channel, one)
            return [{"name": one.name, "id": one.id} for one in found]
        for one in found:
            pods.check_space(channel, one)
        pairs = [(one, image) for one, (_, image) in zip(found, wanted, strict=True)]
        return _committed(settings, channel, pairs, push=push, registry=registry)
    finally:
        channel.close()


def _committed(
    settings: Settings, channel: Channel, pairs: list[tuple[PodContainer, str]], *, push: bool, registry: ocidiff.Registry
) -> list[dict[str, object]]:
    """Commit the containers into the registries that the names of the images say, or into containerd."""
    scheme = REGISTRY if push else ""
    cache, cache_bytes = settings.cache, settings.cache_bytes
    with ocidiff.Store.containerd(channel.address, channel.namespace, cache=cache, cache_bytes=cache_bytes) as store:
        images = [store.commit(store.container(one.id), scheme + image, registry=registry) for one, image in pairs]
    return [
        {"name": one.name, "image": image, "digest": made.descriptor.digest}
        for (one, image), made in zip(pairs, images, strict=True)
    ]
