from collections.abc import Iterator
from os import PathLike
from typing import Self

from paxos._core.effects import RecordView

REASONS: dict[int, str]

def segment_numbers(directory: str | PathLike[str]) -> list[int]: ...

class LogReader:
    def __new__(
        cls,
        directory: str | PathLike[str],
        *,
        node_id: int = ...,
        cluster: int = ...,
        storage: bytes = ...,
        keep_going: bool = ...,
    ) -> Self: ...
    def __iter__(self) -> Iterator[list[RecordView]]: ...
    @property
    def is_damaged(self) -> bool: ...
    @property
    def damage(self) -> str | None: ...
    def results(self) -> dict[str, int | bool | str | None]: ...
