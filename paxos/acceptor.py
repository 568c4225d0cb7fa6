"""The acceptor: compiled below, usable alone in a REPL through :class:`Acceptor`."""

from __future__ import annotations

from collections.abc import Iterable

from paxos._core.acceptor import AcceptorCore
from paxos._core.peers import Peers
from paxos.messages import Message, decode, encode


class Acceptor(AcceptorCore):
    """An acceptor of the whole log (Lamport, *Paxos Made Simple*, section 2.2).

    The compiled base promises, accepts and reports, without the GIL; in a node the reactor drives it.
    """

    @classmethod
    def alone(cls, node_id: int, members: Iterable[int]) -> Acceptor:
        """Return an acceptor without a node around it, for a REPL, a test or a lecture.

        >>> from paxos.messages import Prepare
        >>> acceptor = Acceptor.alone(2, members=(1, 2, 3))
        >>> [promise] = acceptor.receive(Prepare(sender=1, ballot=65537))
        >>> promise.ballot, promise.reported
        (65537, ())
        """
        return cls(Peers(node_id, dict.fromkeys(members)))

    def receive(self, message: Message) -> list[Message]:
        """Take one message, make durable what must be (there is no disk here), and return the answers."""
        self.step(encode(message, receiver=self.peers.node_id))
        self.durable()
        return [decode(frame) for _, frame in self.ready.take_send_after_sync()]
