"""The proposer: phase 1 in Python, phase 2 compiled (Lamport, *Paxos Made Simple*, section 2.2).

Phase 1 runs once for the whole suffix of the log. A candidate asks every member for what it accepted above
the candidate's own chosen prefix, and works out for each slot the only value that may still be proposed:

* K is the highest slot that anyone reports as chosen. The candidate catches up to K first (h1).
* Above K, a slot needs *sound* promises of a quorum: complete, and without damage at that slot (h6).
* Its value is the one reported at the highest ballot; a no-op if none was (P7, P8).

The result is the intent :class:`paxos.messages.Lead`; the reactor checks it against its present state and
phase 2 begins (``_core/proposer``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from paxos._core import ballot as ballots
from paxos._core.ballot import CHOSEN
from paxos._core.codec import PromiseFlag, ValueKind
from paxos._core.peers import Peers
from paxos._core.proposer import ProposerCore
from paxos._core.quorum import size as majority_of
from paxos.messages import PROMISE_ENTRY, PROMISE_HEAD, Fetch, Fetched, Lead, Message, Nack, Prepare, decode
from paxos.messages import Promise as PromiseMessage

SLOTS_REPORTED_MAX = 1 << 22
"""Slots that one acceptor holds at a time (``SLOTS_HELD_MAX`` in ``_core/slots.pxd``)."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one acceptor reported for one slot."""

    ballot: int
    kind: int
    length: int
    crc: int
    is_damaged: bool


@dataclass(slots=True)
class Promise:
    """The pages of one acceptor's promise, as far as they arrived."""

    incarnation: int
    report: int
    storage: bytes
    page_count: int
    pages: set[int] = field(default_factory=set)
    chosen_upto: int = 0
    trimmed: int = 0
    config_slot: int = 0
    votes: dict[int, Vote] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """True when every page has arrived: only then does the promise count (P6)."""
        return len(self.pages) == self.page_count


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value that phase 1 needs and does not hold: ask ``node_id`` for it."""

    slot: int
    ballot: int
    node_id: int


class Proposer(ProposerCore):
    """Phase 1 of one candidate, on top of the compiled phase 2.

    One attempt at a time: :meth:`start_phase_1`, then :meth:`on_promise` and :meth:`on_fetched` as answers
    come, and :meth:`maybe_lead` after each of them.
    """

    candidate_ballot: int = 0
    members: frozenset[int] = frozenset()
    prepare_size: int = 0
    needs_all: bool = False

    def __init__(self, *arguments: Any, **limits: Any) -> None:
        super().__init__(*arguments, **limits)
        self._forget()  # late answers to an earlier life come before the first attempt, too

    def start_phase_1(self, ballot: int, members: frozenset[int], *, needs_all: bool = False) -> None:
        """Forget earlier attempts and collect promises for ``ballot``.

        Args:
            ballot: an own ballot, above everything this node promised or was told of.
            members: of the newest configuration known to be chosen.
            needs_all: before the first configuration is chosen, every member must promise (h13).
        """
        self.candidate_ballot = ballot
        self.members = members
        self.prepare_size = len(members) if needs_all else majority_of(len(members))
        self.needs_all = needs_all
        self._forget()

    def _forget(self) -> None:
        self.promises: dict[int, Promise] = {}
        self.values: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.unsound: set[tuple[int, int]] = set()
        self.asked: set[Wanted] = set()
        self._missing: dict[int, int] = {}

    def abandon(self) -> None:
        """Give the attempt up."""
        self.candidate_ballot = 0

    def on_promise(self, sender: int, incarnation: int, ballot: int, chosen_upto: int, page: bytes) -> bool:
        """Take one page. False if it does not belong to this attempt.

        Raises:
            ValueError: the page is not well formed.
        """
        if not self.candidate_ballot or ballot != self.candidate_ballot or sender not in self.members:
            return False
        try:
            trimmed, config_slot, number, page_count, count, report, storage = PROMISE_HEAD.unpack_from(page)
        except struct.error as error:
            raise ValueError(f"not a page of a promise: {error}") from error
        if len(page) != PROMISE_HEAD.size + count * PROMISE_ENTRY.size or number >= page_count:
            raise ValueError(
                f"a page of {len(page)} bytes that says it has {count} entries, {number} of {page_count}"
            )
        entries = list(PROMISE_ENTRY.iter_unpack(page[PROMISE_HEAD.size :]))
        for slot, *_rest in entries:
            # What an acceptor holds reaches no further; a slot beyond would have every slot below filled.
            if not 0 < slot <= chosen_upto + SLOTS_REPORTED_MAX:
                raise ValueError(
                    f"a vote for slot {slot} by an acceptor that knows {chosen_upto} to be chosen"
                )
        promise = self.promises.get(sender)
        if promise is None or (incarnation, report) > (promise.incarnation, promise.report):
            # A newer report of the same acceptor replaces the older one as a whole: what a page covers
            # depends on what was chosen there when it was built, so pages of two reports may leave a slot out.
            promise = Promise(incarnation=incarnation, report=report, storage=storage, page_count=page_count)
            self.promises[sender] = promise
        elif (incarnation, report) < (
            promise.incarnation,
            promise.report,
        ) or promise.page_count != page_count:
            return False
        promise.pages.add(number)
        promise.chosen_upto = max(promise.chosen_upto, chosen_upto)
        promise.trimmed = max(promise.trimmed, trimmed)
        promise.config_slot = max(promise.config_slot, config_slot)
        for slot, accepted, length, crc, kind, flags, _reserved in entries:
            promise.votes[slot] = Vote(accepted, kind, length, crc, bool(flags & PromiseFlag.ENTRY_DAMAGED))
        return True

    def mark_asked(self, wanted: Wanted) -> bool:
        """Remember that ``wanted`` was asked for; False if it had been already."""
        is_new = wanted not in self.asked
        self.asked.add(wanted)
        return is_new

    def waits_for(self, slot: int, ballot: int, sender: int) -> bool:
        """Tell whether this attempt asked ``sender`` for that value and has not got it."""
        return Wanted(slot, ballot, sender) in self.asked and (slot, ballot) not in self.values

    def on_fetched(self, slot: int, ballot: int, kind: int, value: bytes) -> None:
        """Take a value that was asked for: the one accepted in ``slot`` at ``ballot``."""
        if self.candidate_ballot:
            self.values[slot, ballot] = (kind, value)
            if ballot in (self._missing.get(slot), CHOSEN):
                self._missing.pop(slot, None)

    def on_fetch_failed(self, slot: int, sender: int) -> None:
        """``sender`` reported a value that it cannot give: its promise is not sound there."""
        if self.candidate_ballot:
            self.unsound.add((sender, slot))
            self._missing.clear()

    def on_trimmed(self, sender: int, trimmed: int) -> None:
        """``sender`` no longer holds what it reported: K has grown (h1)."""
        if sender in self.promises:
            self.promises[sender].trimmed = max(self.promises[sender].trimmed, trimmed)
            self._missing.clear()

    @property
    def misses_values(self) -> bool:
        """True while values that the last look wanted have not come: until then another look finds nothing new."""
        return bool(self._missing)

    @property
    def best_chosen(self) -> tuple[int, int]:
        """K and who reported it: the highest slot known to be chosen, over all pages so far."""
        best = (0, 0)
        for sender, promise in self.promises.items():
            best = max(best, (max(promise.chosen_upto, promise.trimmed), sender))
        return best

    @property
    def has_quorum(self) -> bool:
        """True when enough members have sent complete promises."""
        return sum(promise.is_complete for promise in self.promises.values()) >= self.prepare_size

    def _votes_at(self, slot: int) -> tuple[int, list[tuple[int, int, Vote]]]:
        """Return how many promises are sound at ``slot``, and the votes reported: (ballot, sender, vote)."""
        sound = 0
        votes = []
        for sender, promise in self.promises.items():
            vote = promise.votes.get(slot)
            if vote is not None and (vote.is_damaged or (sender, slot) in self.unsound):
                continue
            if promise.is_complete:
                sound += 1
            if vote is not None:
                votes.append((vote.ballot, sender, vote))
        return sound, votes

    def maybe_lead(
        self, chosen_upto: int, first_value: tuple[int, bytes] | None = None
    ) -> Lead | list[Wanted] | None:
        """Conclude phase 1 if it can be concluded.

        Args:
            chosen_upto: what this node itself knows to be chosen.
            first_value: proposed in slot 1 if nobody reports a value there: the first configuration.

        Returns:
            The intent to lead, or the values that are still missing, or ``None`` while promises or the
            chosen prefix are missing.
        """
        if not self.candidate_ballot or not self.has_quorum:
            return None
        first = max(chosen_upto, self.best_chosen[0]) + 1
        if chosen_upto + 1 < first:
            return None  # catch up to K first (h1)
        last = max((slot for p in self.promises.values() for slot in p.votes), default=0)
        values: list[tuple[int, bytes]] = []
        wanted: list[Wanted] = []
        for slot in range(first, last + 1):
            sound, votes = self._votes_at(slot)
            if sound < self.prepare_size:
                return None
            if not votes:
                values.append(first_value if slot == 1 and first_value is not None else (ValueKind.NOOP, b""))
                continue
            ballot, sender, vote = max(votes, key=lambda vote: (vote[0], vote[1]))
            if vote.length == 0:
                values.append((vote.kind, b""))
            elif (slot, ballot) in self.values or (slot, CHOSEN) in self.values:
                values.append(self.values.get((slot, ballot)) or self.values[slot, CHOSEN])
            else:
                wanted.append(Wanted(slot, ballot, sender))
        self._missing = {item.slot: item.ballot for item in wanted}
        if wanted:
            return wanted
        if first == 1 and not values and first_value is not None:
            values.append(first_value)
        return Lead(ballot=self.candidate_ballot, first_slot=first, values=tuple(values))

    # ---- by hand -----------------------------------------------------------------------------------------

    @classmethod
    def alone(cls, node_id: int, members: Iterable[int]) -> Proposer:
        """Return a proposer without a node around it, for a REPL, a test or a lecture.

        >>> proposer = Proposer.alone(1, members=(1, 2, 3))
        >>> proposer.prepare(round_number=1)
        Prepare(sender=1, ballot=65537, from_slot=1)
        """
        return cls(Peers(node_id, dict.fromkeys(members)))

    def prepare(self, round_number: int) -> Prepare:
        """Start phase 1 in ``round_number`` and return the message for every acceptor."""
        ballot = ballots.make(round_number, self.peers.node_id)
        self.start_phase_1(ballot, frozenset(self.peers.members()))
        return Prepare(sender=self.peers.node_id, ballot=ballot)

    def receive(self, message: Message) -> None:
        """Take an answer to phase 1: a promise, a fetched value, or a refusal, which ends the attempt."""
        match message:
            case PromiseMessage():
                self.on_promise(message.sender, 1, message.ballot, message.chosen_upto, message.page)
            case Fetched(status=0):
                self.on_fetched(message.slot, message.ballot, message.kind, message.value)
            case Nack() if message.ballot == self.candidate_ballot:
                self.abandon()

    def conclude(self) -> Lead | list[tuple[int, Fetch]] | None:
        """Return the values that phase 1 forces, or whom to ask for which of them, or ``None``: no quorum yet."""
        result = self.maybe_lead(0)
        if result is None or isinstance(result, Lead):
            return result
        return [
            (wanted.node_id, Fetch(sender=self.peers.node_id, slot=wanted.slot, ballot=wanted.ballot))
            for wanted in result
        ]

    def take_messages(self) -> list[tuple[int, Message]]:
        """Remove and return what phase 2 wants sent: ``(receiver, message)``."""
        return [(receiver, decode(frame)) for receiver, frame in self.ready.take_send_now()]
