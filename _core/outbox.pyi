from typing import final

@final
class Outbox:
    @property
    def held_bytes(self) -> int: ...
