"""The acceptor: see :class:`Acceptor`."""

from __future__ import annotations

from paxos._core.acceptor import AcceptorCore


class Acceptor(AcceptorCore):
    """An acceptor of the whole log; usable alone, without a node around it.

    The compiled base promises, accepts and reports. What belongs to a damaged disk is here.
    """
