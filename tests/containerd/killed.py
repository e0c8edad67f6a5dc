"""A commit of a container that kills itself before a call of containerd, or in the middle of the diff.

killed.py ADDRESS NAMESPACE CALL     the number of the call, `diff`, or `never`; `never` prints how many calls there were
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ocidiff.containerd.channel import Channel
from ocidiff.image.layers import LocalDiffer
from ocidiff.store import Store


def main(address: str, namespace: str, moment: str) -> None:
    calls = 0

    def counted(original: Any) -> Any:
        def call(self: Any, *arguments: Any, **fields: Any) -> Any:
            nonlocal calls
            calls += 1
            if str(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *arguments, **fields)

        return call

    def compare(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    for name in ("call", "stream", "exchange"):
        setattr(Channel, name, counted(getattr(Channel, name)))
    if moment == "diff":
        LocalDiffer.compare = compare  # type: ignore[assignment,method-assign]
    with Store.containerd(address, namespace) as store:
        store.commit(store.container("c1"), "app:v1")
    print(calls)


if __name__ == "__main__":
    main(*sys.argv[1:])
