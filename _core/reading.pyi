from typing_extensions import disjoint_base

from paxos._core.greeting import GreetingCore

@disjoint_base
class ReadingCore(GreetingCore): ...
