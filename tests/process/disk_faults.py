"""Disks that fail: a preloaded library between the members of a cluster and their files.

The library is `tests/process/disk_faults.c`, compiled with the machine's C compiler. A test changes the rules of a
node's disk while the node runs, through a file that both have mapped.
"""

from __future__ import annotations

import contextlib
import errno as errnos
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.cluster import Cluster

SOURCE = Path(__file__).with_name("disk_faults.c")
KINDS = ("sync", "write", "create", "space", "rename")
LOG = "/log/0"
"""Scope of the segments that are written to; files that wait to become one have other names."""
READY = "/log/ready-"

_RULE = struct.Struct("<iiiiiiQQQ64s")
_HEAD = struct.Struct("<iiiii")


def build(directory: Path) -> Path:
    """Compile the library and return its path; skip the test where there is no compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the library that makes disks fail")
    library = directory / "disk_faults.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        str(library),
        str(SOURCE),
    ]
    subprocess.run([*command, "-ldl"], check=True, capture_output=True, text=True, timeout=100)
    return library


class Disk:
    """The rules of one node's disk."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_RULE.size * len(KINDS)))
        with path.open("r+b") as file:
            self._rules = mmap.mmap(file.fileno(), _RULE.size * len(KINDS))

    def fail(
        self,
        kind: str,
        error: int = 0,
        *,
        times: int = -1,
        skip: int = 0,
        delay_ms: int = 0,
        bytes_max: int = 0,
        scope: str = "",
    ) -> None:
        """Set the rule for one of ``KINDS``, and begin to count its calls anew.

        Args:
            error: errno of the calls that fail.
            times: so many fail, then they succeed again; -1: all.
            skip: so many calls go well before.
            delay_ms: every call takes that much longer, or until the rule is changed.
            bytes_max: a write takes no more at a time.
            scope: the path has to contain it.
        """
        at = KINDS.index(kind) * _RULE.size
        self._rules[at : at + _RULE.size] = bytes(_RULE.size)
        packed = _RULE.pack(error, times, skip, delay_ms, bytes_max, 0, 0, 0, 0, scope.encode())
        self._rules[at + _HEAD.size : at + _RULE.size] = packed[_HEAD.size :]
        self._rules[at : at + _HEAD.size] = packed[: _HEAD.size]

    def heal(self) -> None:
        """Let everything succeed; counts stay."""
        for kind in KINDS:
            at = KINDS.index(kind) * _RULE.size
            self._rules[at : at + _HEAD.size] = bytes(_HEAD.size)

    def seen(self, kind: str) -> dict[str, int]:
        """Return how many calls were met since the rule was set, how many failed, and which was the first."""
        fields = _RULE.unpack_from(self._rules, KINDS.index(kind) * _RULE.size)
        return {"calls": fields[6], "failed": fields[7], "first_failed": fields[8]}

    def full(self, error: int = errnos.ENOSPC) -> None:
        """Let there be no room for new files."""
        self.fail("create", error, scope=READY)
        self.fail("space", error, scope=READY)


@contextlib.contextmanager
def cluster_with_disks(
    directory: Path, count: int = 3, *, config: dict[str, Any] | None = None
) -> Iterator[tuple[Cluster, dict[int, Disk]]]:
    """Start a cluster whose disks can fail, and wait for its leader."""
    library = build(directory)
    disks = {node: Disk(directory / f"disk{node}") for node in range(1, count + 1)}
    with Cluster(directory, count, config=config, environment={"LD_PRELOAD": str(library)}) as cluster:
        cluster.start()
        cluster.leader()
        try:
            yield cluster, disks
        finally:
            for disk in disks.values():
                disk.heal()
