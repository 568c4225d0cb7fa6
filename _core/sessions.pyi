from typing import final

@final
class Sessions:
    def last(self) -> dict[int, tuple[int, int]]: ...
