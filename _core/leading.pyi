from typing_extensions import disjoint_base

from paxos._core.pipeline import PipelineCore

@disjoint_base
class LeadingCore(PipelineCore): ...
