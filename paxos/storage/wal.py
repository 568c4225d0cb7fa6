"""The write-ahead log with the short names: what tests, tools and the runtime use from Python.

The reactor calls the native methods of the same object (``_core/wal.pxd``) without the GIL.
"""

from __future__ import annotations

from collections.abc import Iterable

from paxos._core.effects import RecordView
from paxos._core.wal_face import WalFace


class WriteAheadLog(WalFace):
    """A :class:`paxos._core.wal.Wal` whose steps are called as the design calls them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with WriteAheadLog(directory, node_id=1, cluster=7, storage=bytes(16), create=True) as wal:
    ...         record = RecordView(2, 2, 0, 1, 65537, 0, 0, 0, b"value")
    ...         [position] = wal.append([record])
    ...         wal.sync()
    ...         [entry.value for entry in wal.scan()]
    [b'value']
    """

    def append(self, records: Iterable[RecordView]) -> list[int]:
        """Append records in one write and return their positions. Durable only after :meth:`sync`."""
        return self.append_views(records)

    def sync(self) -> None:
        """Make everything appended durable; a failure poisons the log and is never retried."""
        self.sync_now()

    def scan(self) -> list[RecordView]:
        """Return every record, oldest first; the first scan of an existing log cuts a torn tail."""
        return self.scan_views()

    def read(self, position: int, length: int, value_crc: int) -> bytes:
        """Return the checked value of the record at ``position``."""
        return self.read_value(position, length, value_crc)
