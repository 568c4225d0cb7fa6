"""The trace of a run: JSON lines that depend on the seed alone.

Two runs of one seed give the same bytes, under any PYTHONHASHSEED: nothing that goes in here depends on the
order of a hash table, on an address or on real time.
"""

from __future__ import annotations

import hashlib
import json
from typing import IO


class Trace:
    """Collects events; keeps a running digest, the last lines, and writes to ``sink`` if there is one.

    Args:
        sink: text file that receives every line, or ``None``.
        tail: how many of the last lines are kept for a failure report.
    """

    def __init__(self, sink: IO[str] | None = None, tail: int = 0) -> None:
        self.sink = sink
        self.count = 0
        self._digest = hashlib.sha256()
        self._tail: list[str] = []
        self._tail_max = tail

    def add(self, now_us: int, event: str, node: int, **details: object) -> None:
        """Append one event of ``node`` (0: the world) at virtual time ``now_us``."""
        self.count += 1
        line = json.dumps(
            {"step": self.count, "us": now_us, "event": event, "node": node, **details},
            separators=(",", ":"),
        )
        self._digest.update(line.encode())
        self._digest.update(b"\n")
        if self.sink is not None:
            self.sink.write(line + "\n")
        if self._tail_max:
            self._tail.append(line)
            if len(self._tail) > 2 * self._tail_max:
                del self._tail[: -self._tail_max]

    def digest(self) -> str:
        """Return the SHA-256 of all lines so far, in hexadecimal."""
        return self._digest.hexdigest()

    def tail(self) -> list[str]:
        """Return the last lines, oldest first."""
        return self._tail[-self._tail_max :] if self._tail_max else []
