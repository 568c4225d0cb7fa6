from typing_extensions import disjoint_base

from paxos._core.reading import ReadingCore

@disjoint_base
class EngineCore(ReadingCore): ...
