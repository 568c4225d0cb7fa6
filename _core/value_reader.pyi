from typing import final

@final
class ValueReader: ...
