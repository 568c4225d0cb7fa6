from typing import final

@final
class SegmentPool: ...
