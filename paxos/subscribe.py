"""Following the log: :class:`Subscription`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from paxos import validation
from paxos.errors import Closed
from paxos.types import Entry

READ_AHEAD_ENTRIES = 1 << 16
READ_AHEAD_BYTES = 4 << 20
"""Commands read from the log at a time: as many as there may be in a batch, since a batch is read as a whole."""


class Followed(Protocol):
    """What a subscription follows: a node."""

    @property
    def applied_index(self) -> int: ...
    def wait_index(self, index: int, timeout_s: float | None) -> bool: ...
    def read_range(self, start: int, stop: int) -> list[Entry]: ...
    def raise_if_failed(self) -> None: ...
    @property
    def ended(self) -> bool: ...


class Subscription(Iterator[Entry]):
    """The commands of the log from some index on, those to come included: iterate over it.

    Every command appears exactly once, in index order. It is read from the local log, so a slow subscriber
    costs no memory; to resume later, pass the last index that you have dealt with plus one as
    ``from_index``. The iteration ends when the replica is closed, and raises when the replica has failed.
    """

    def __init__(self, node: Followed, from_index: int, owner: object = None) -> None:
        self._node = node
        self._owner = owner  # a replica that is only followed must not be collected, which would close it
        self._ahead: list[Entry] = []
        self._at = 0
        self._closed = False
        self.next_index = from_index
        """Index of the entry that comes next."""

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Entry:
        while True:
            entry = self.get(timeout=1.0)
            if entry is not None:
                return entry
            if self._closed or self._node.ended:
                self._node.raise_if_failed()
                raise StopIteration

    def get(self, timeout: float | None = None) -> Entry | None:
        """Return the next entry, or ``None`` if there is none within ``timeout`` seconds or ever."""
        timeout = validation.check_timeout(timeout)
        if self._at >= len(self._ahead) and not self._fill(timeout):
            return None
        entry = self._ahead[self._at]
        self._at += 1
        self.next_index = entry.index + 1
        return entry

    def _fill(self, timeout: float | None) -> bool:
        if self._closed or not self._node.wait_index(self.next_index, timeout):
            return False
        stop = min(self._node.applied_index + 1, self.next_index + READ_AHEAD_ENTRIES)
        try:
            self._ahead = self._node.read_range(self.next_index, stop)
        except Closed:
            return False
        self._at = 0
        return bool(self._ahead)

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._ahead = []
        self._at = 0
