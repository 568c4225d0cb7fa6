from enum import IntEnum
from typing import NamedTuple, final

class RecordKind(IntEnum):
    RECORD_PROMISE = 1
    RECORD_ACCEPT = 2
    RECORD_CHOSEN = 3
    RECORD_MARK = 4
    RECORD_INCARNATION = 5
    RECORD_TRIM = 6
    RECORD_QUARANTINE = 7
    RECORD_PEER = 8

class QuarantineReason(IntEnum):
    QUARANTINE_NONE = 0
    QUARANTINE_DAMAGED = 1
    QUARANTINE_LOST = 2
    QUARANTINE_IDENTITY = 3
    QUARANTINE_ROLLED_BACK = 4
    QUARANTINE_DUPLICATE = 5

class RecordView(NamedTuple):
    kind: int
    value_kind: int
    group: int
    slot: int
    ballot: int
    mark: int
    value_crc: int
    position: int
    value: bytes | None
    length: int = ...
    @property
    def is_damaged(self) -> bool: ...

class ChosenView(NamedTuple):
    slot: int
    kind: int
    index: int  # type: ignore[assignment]
    count: int  # type: ignore[assignment]
    origin: int
    incarnation: int
    first_ticket: int
    position: int
    length: int
    value_crc: int
    value: bytes | None

@final
class Ready:
    @property
    def records(self) -> list[RecordView]: ...
    def set_position(self, index: int, position: int) -> None: ...
    def take_send_now(self) -> list[tuple[int, bytes]]: ...
    def take_send_after_sync(self) -> list[tuple[int, bytes]]: ...
    def take_cold(self) -> list[bytes]: ...
    def take_chosen(self) -> list[ChosenView]: ...
    def take_reads(self) -> tuple[int, int] | None: ...
    @property
    def is_empty(self) -> bool: ...
