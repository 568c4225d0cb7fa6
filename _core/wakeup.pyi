from typing import final

@final
class Waker: ...
