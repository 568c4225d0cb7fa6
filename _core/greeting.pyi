from typing_extensions import disjoint_base

from paxos._core.leading import LeadingCore

@disjoint_base
class GreetingCore(LeadingCore): ...
