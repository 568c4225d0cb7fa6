from os import PathLike

class Wal:
    def __init__(
        self,
        directory: str | PathLike[str],
        *,
        node_id: int,
        cluster: int,
        storage: bytes,
        segment_bytes: int = ...,
        idle_mark_ms: int = ...,
        create: bool = ...,
        through_damage: bool = ...,
    ) -> None: ...
