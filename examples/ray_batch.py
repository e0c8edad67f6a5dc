"""Commit the lines of a manifest with Ray, and print the results: `ray_batch.py SHARDS MANIFEST BASE [OPTION...]`.

Each task is one `ocidiff batch --shard I/N`. Workers on several machines see the manifest and its directories under the same
paths, and send the images to a registry: names such as `docker://HOST/REPO:TAG`. A task that is lost is run again.
"""

from __future__ import annotations

import subprocess
import sys

import ray  # type: ignore[import-not-found]


def commit(shard: str, manifest: str, base: str, options: list[str]) -> tuple[int, str]:
    """Run one shard; return its exit status and its results as JSON Lines."""
    words = ["ocidiff", "batch", manifest, "--base", base, "--shard", shard, *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def main(count: int, manifest: str, base: str, *options: str) -> int:
    """Run all shards, and return the highest exit status."""
    ray.init()
    task = ray.remote(num_cpus=2, max_retries=3)(commit)
    left = [task.remote(f"{index}/{count}", manifest, base, list(options)) for index in range(count)]
    worst = 0
    while left:
        done, left = ray.wait(left)
        for status, results in ray.get(done):
            sys.stdout.write(results)
            # A signal gives a negative number, as -9 if the memory ran out.
            worst = max(worst, status if status >= 0 else 128 - status)
    return worst


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
