"""A Multi-Paxos replicated log that a Python program embeds.

Give every process a data directory and the addresses of its peers, and each has the same log, in the same
order, on its own disk::

    with paxos.Replica("data/n1", node_id=1, members={1: "tcp://...", ...}, state_machine=Log()) as replica:
        outcome = replica.propose(b"5", timeout=2)

See :class:`Replica`, :class:`StateMachine`, :class:`LocalCluster` and :mod:`paxos.aio`. The roles of the
protocol, :class:`Acceptor`, :class:`Proposer` and :class:`Learner`, can be talked to by hand.
"""

from __future__ import annotations

from paxos import aio
from paxos.acceptor import Acceptor
from paxos.cluster import LocalCluster
from paxos.errors import (
    ApplyFailed,
    Busy,
    Closed,
    ConfigError,
    InvariantViolation,
    NotLeader,
    OutcomeUnknown,
    PaxosError,
    ReadTimeout,
    Rejected,
    RemoteProtocolError,
    StorageError,
)
from paxos.futures import Future, RunOutcome
from paxos.learner import Learner
from paxos.proposer import Proposer
from paxos.replica import Replica
from paxos.state_machine import StateMachine
from paxos.status import PeerStatus, Status
from paxos.subscribe import Subscription
from paxos.types import ApplyContext, Config, Entry, Outcome

__version__ = "0.1.0"

__all__ = [
    "Acceptor",
    "ApplyContext",
    "ApplyFailed",
    "Busy",
    "Closed",
    "Config",
    "ConfigError",
    "Entry",
    "Future",
    "InvariantViolation",
    "Learner",
    "LocalCluster",
    "NotLeader",
    "Outcome",
    "OutcomeUnknown",
    "PaxosError",
    "PeerStatus",
    "Proposer",
    "ReadTimeout",
    "Rejected",
    "RemoteProtocolError",
    "Replica",
    "RunOutcome",
    "StateMachine",
    "Status",
    "StorageError",
    "Subscription",
    "__version__",
    "aio",
]
