"""Acceptors on a table, and messages carried between them and the proposers by hand, each told on stdout.

These are the roles that run in a node, without the node: no threads, no sockets, no disks and no clock. Here
a message is delivered when a line of the example says so, and lost when none does.
"""

from __future__ import annotations

from collections.abc import Iterable

from paxos import Acceptor, Learner, Proposer
from paxos._core import ballot as ballots
from paxos._core.codec import ValueKind
from paxos.messages import Accept, Accepted, Lead, Message, Nack, Promise


def text(ballot: int) -> str:
    """Return a ballot the way people say it: the round, and whose it is."""
    return f"{ballot >> 16}.{ballots.node_of(ballot)}"


class Table:
    """Acceptors by number, one of each per member, and the answers that they give.

    Args:
        size: how many acceptors.
        is_quiet: tell nothing.
    """

    def __init__(self, size: int, *, is_quiet: bool = False) -> None:
        self.members = range(1, size + 1)
        self.acceptors = {node: Acceptor.alone(node, self.members) for node in self.members}
        self.is_quiet = is_quiet
        self.on_the_way: list[tuple[int, Message]] = []
        """Messages that did not reach their acceptor, yet."""

    def proposer(self, node_id: int) -> Proposer:
        """Return a fresh proposer of one member."""
        return Proposer.alone(node_id, self.members)

    def tell(self, line: str) -> None:
        """Say what happens."""
        if not self.is_quiet:
            print(line)

    def prepare(self, proposer: Proposer, round_number: int, reach: Iterable[int]) -> list[Message]:
        """Carry Prepare to the acceptors in ``reach`` and their answers back."""
        message = proposer.prepare(round_number)
        reach = list(reach)
        self.tell(f"   proposer {message.sender} → acceptors {reach}: Prepare({text(message.ballot)})")
        answers = [answer for node in reach for answer in self.acceptors[node].receive(message)]
        for answer in answers:
            self._tell_answer(answer)
            proposer.receive(answer)
        return answers

    def conclude(self, proposer: Proposer) -> Lead | None:
        """Let the proposer draw its conclusion, fetching the values that it must adopt."""
        result = proposer.conclude()
        if isinstance(result, list):
            for node, fetch in result:
                self.tell(
                    f"   it must adopt the value accepted at {text(fetch.ballot)}; acceptor {node} has it"
                )
                for answer in self.acceptors[node].receive(fetch):
                    proposer.receive(answer)
            result = proposer.conclude()
        assert not isinstance(result, list), "every value was fetched"
        if result is None:
            self.tell("   that is no quorum: it may propose nothing")
        return result

    def accept(
        self, proposer: Proposer, lead: Lead, wish: bytes, reach: Iterable[int], learner: Learner
    ) -> bytes | None:
        """Propose in slot 1 what phase 1 forces, else ``wish``; return the value if it is chosen by it.

        Only the acceptors in ``reach`` hear it; what the others should have heard stays on the way.
        """
        kind, value = lead.values[0] if lead.values else (int(ValueKind.BATCH), wish)
        proposer.start_phase_2(lead.ballot, lead.first_slot)
        proposer.propose(kind, value)
        learner.expect(lead.ballot, lead.first_slot)
        reach = list(reach)
        messages = proposer.take_messages()
        self.on_the_way = [item for item in messages if item[0] not in reach]
        return self._carry([item for item in messages if item[0] in reach], learner)

    def deliver_late(self, learner: Learner) -> bytes | None:
        """Deliver what was still on the way; return the value if it is chosen by it."""
        messages, self.on_the_way = self.on_the_way, []
        return self._carry(messages, learner)

    def _carry(self, messages: list[tuple[int, Message]], learner: Learner) -> bytes | None:
        chosen = None
        for node, message in messages:
            answers = self.acceptors[node].receive(message)
            if not isinstance(message, Accept):
                continue  # Open: it only says that values will come in order
            self.tell(
                f"   proposer {message.sender} → acceptor {node}: "
                f"Accept({text(message.ballot)}, slot {message.slot}, {message.value.decode()})"
            )
            for answer in answers:
                self._tell_answer(answer)
                if isinstance(answer, Accepted) and learner.vote(answer.sender, answer.ballot, answer.upto):
                    chosen = message.value
        if chosen is not None:
            self.tell(f"   a quorum has accepted: {chosen.decode()} is CHOSEN")
        return chosen

    def _tell_answer(self, answer: Message) -> None:
        match answer:
            case Promise(reported=()):
                self.tell(
                    f"   acceptor {answer.sender}: Promise({text(answer.ballot)}), nothing accepted yet"
                )
            case Promise(reported=(vote, *_)):
                self.tell(
                    f"   acceptor {answer.sender}: Promise({text(answer.ballot)}), "
                    f"slot 1 was accepted at {text(vote.ballot)}"
                )
            case Accepted():
                self.tell(f"   acceptor {answer.sender}: Accepted({text(answer.ballot)}, slot 1)")
            case Nack():
                self.tell(
                    f"   acceptor {answer.sender}: no to {text(answer.ballot)}, "
                    f"it has promised {text(answer.promised)}"
                )
