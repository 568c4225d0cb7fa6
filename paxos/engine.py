"""Put one node's roles together: see :class:`Engine`."""

from __future__ import annotations

from collections.abc import Mapping

from paxos._core.effects import Ready
from paxos._core.engine_face import EngineFace
from paxos._core.heartbeat import HeartbeatCore
from paxos._core.peers import Peers
from paxos._core.slots import SlotTable
from paxos.acceptor import Acceptor
from paxos.learner import Learner
from paxos.proposer import Proposer
from paxos.types import Config


class Engine(EngineFace):
    """One node without IO: frames, ticks, batches and intents in, one ``Ready`` out.

    The reactor and the simulator drive this same object.

    Args:
        node_id: this node.
        cluster: cluster id; frames of others are dropped.
        incarnation: of this start; higher than ever before.
        storage: storage UUID of this node, 16 bytes.
        members: node id to storage UUID, or None while no configuration has bound it.
        config: limits and periods.
        group: which log this is; 0 until there are several.
        nonce: random, another one at every start; 0: this node cannot be told from a copy of itself.
    """

    def __new__(cls, *_args: object, **_kwargs: object) -> Engine:
        return super().__new__(cls)

    def __init__(
        self,
        node_id: int,
        cluster: int,
        incarnation: int,
        storage: bytes,
        members: Mapping[int, bytes | None],
        config: Config,
        group: int = 0,
        nonce: int = 0,
    ) -> None:
        peers = Peers(
            node_id,
            dict(members),
            cluster=cluster,
            incarnation=incarnation,
            storage=storage,
            group=group,
            nonce=nonce,
        )
        slots, ready = SlotTable(), Ready()
        self.acceptor_role = Acceptor(
            peers,
            slots,
            ready,
            page_entries=config.promise_page_entries,
            unchosen_bytes_max=config.unchosen_bytes_max,
        )
        self.proposer_role = Proposer(
            peers, slots, ready, window_slots=config.window_slots, window_bytes=config.window_bytes
        )
        self.learner_role = Learner(peers, slots, ready)
        heartbeat = HeartbeatCore(
            peers,
            ready,
            period_us=config.heartbeat_ms * 1000,
            election_timeout_us=config.election_timeout_ms * 1000,
            priority=config.priority,
        )
        super().__init__(
            self.acceptor_role,
            self.proposer_role,
            self.learner_role,
            heartbeat,
            retained_bytes_max=config.retained_bytes_max,
        )
