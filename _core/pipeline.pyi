from typing_extensions import disjoint_base

from paxos._core.acceptor import AcceptorCore
from paxos._core.heartbeat import HeartbeatCore
from paxos._core.learner import LearnerCore
from paxos._core.proposer import ProposerCore

@disjoint_base
class PipelineCore:
    def __init__(
        self,
        acceptor: AcceptorCore,
        proposer: ProposerCore,
        learner: LearnerCore,
        heartbeat: HeartbeatCore,
        *,
        retained_bytes_max: int = ...,
    ) -> None: ...
