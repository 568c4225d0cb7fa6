"""Messages of the protocol and intents of the control plane, as frozen dataclasses.

A *message* travels between nodes; :func:`encode` and :func:`decode` turn it into a frame and back. An
*intent* travels from the control thread to the reactor of the same node, which checks it against its present
state before it acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Promise ``ballot`` ourselves and, once that is durable, send Prepare to all members."""

    ballot: int
    from_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """Phase 1 is complete: lead at ``ballot``, proposing ``values`` from ``first_slot`` on before anything new."""

    ballot: int
    first_slot: int
    values: Sequence[tuple[int, bytes]] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send one frame of this node."""

    frame: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Hand leadership to ``heir``."""

    heir: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resign:
    """Stop leading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """The configuration chosen in ``slot`` binds ``members`` (node id to storage UUID) from ``slot + 1`` on."""

    slot: int
    members: Mapping[int, bytes]


Intent = Campaign | Lead | Send | Transfer | Resign | Configure
