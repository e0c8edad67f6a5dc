"""A commit of a container that kills itself before or after an exchange with containerd, or in the middle of the diff.

killed.py ADDRESS NAMESPACE MOMENT     the number of the exchange, which is a call or a message of a stream; with a `+` after
                                       it; `diff`, or `never`, which prints how many exchanges there were
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
    exchange = Channel._translated

    def counted(self: Channel, call: Any) -> Any:
        nonlocal calls
        calls += 1
        number = calls
        if moment == f"{number}":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = exchange(self, call)
        if moment == f"{number}+":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def compare(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    Channel._translated = counted  # type: ignore[method-assign]
    if moment == "diff":
        LocalDiffer.compare = compare  # type: ignore[assignment,method-assign]
    with Store.containerd(address, namespace) as store:
        store.commit(store.container("c1"), "app:v1")
    print(calls)


if __name__ == "__main__":
    main(*sys.argv[1:])
