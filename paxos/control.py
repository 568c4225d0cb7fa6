"""The control plane of one node, without IO: elections, phase 1, catch-up.

It lives on the control thread. Cold frames and time come in; intents come out, which the reactor checks
against its present state before it acts. It works on what frames told it, so it may be late; it is never
asked to decide anything that safety rests on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from paxos._core import ballot as ballots
from paxos._core.codec import (
    FetchStatus,
    FrameKind,
    NackReason,
    RoundFlag,
    ValueKind,
    decode_frame,
    encode_frame,
)
from paxos.election import Election
from paxos.errors import StorageError
from paxos.learner import BURST_BYTES, Learner
from paxos.membership import Configuration, Member
from paxos.messages import Campaign, Configure, Intent, Lead, Send, Transfer
from paxos.proposer import Proposer
from paxos.types import Config

if TYPE_CHECKING:
    from random import Random

_SUMMARY = struct.Struct("<QQQQQQQIHHQ")


class ChosenReader(Protocol):
    """Where chosen values are read from, to serve peers that missed them."""

    @property
    def first_slot(self) -> int:
        """First slot that can be read; older ones were trimmed."""

    def read_slots(
        self, first_slot: int, last_slot: int, limit_bytes: int
    ) -> Sequence[tuple[int, int, bytes]]:
        """Return ``(slot, kind, value)`` from ``first_slot`` on, in order, at least one if it is there."""


class Control:
    """Elections, phase 1 and catch-up of one node.

    Args:
        node_id: this node.
        cluster: cluster id, for the frames.
        incarnation: of this start of the node.
        members: node id to address, from the constructor; a chosen configuration replaces it.
        proposer: whose phase 1 is run here.
        learner: whose catch-up is run here.
        log: chosen values of this node.
        config: periods and limits.
        random: injected.
    """

    def __init__(
        self,
        *,
        node_id: int,
        cluster: int,
        incarnation: int,
        members: Mapping[int, str],
        proposer: Proposer,
        learner: Learner,
        log: ChosenReader,
        config: Config,
        random: Random,
        group: int = 0,
    ) -> None:
        self.node_id = node_id
        self.members = dict(members)
        self.config_slot = 0
        self.proposer = proposer
        self.learner = learner
        self.election = Election(config, random)
        self._log = log
        self._frame_fields: dict[str, Any] = {
            "sender": node_id,
            "cluster": cluster,
            "incarnation": incarnation,
            "group": group,
        }
        self._retry_us = 3 * config.heartbeat_ms * 1000
        self._attempt_us_max = 4 * config.election_timeout_ms * 1000
        self._reclaim_us = config.election_timeout_ms * 1000
        self._attempt_until_us = 0
        self._resend_at_us = 0
        self._reclaim_at_us: int | None = None
        self._last_reclaim_us = 0
        self._highest_seen = 0
        self._promised = 0
        self._chosen_upto = 0
        self._led_ballot = 0
        self._best_peer = 0
        self._all_heard = False
        self._handlers: dict[int, Callable[[dict[str, int], bytes, int], list[Intent]]] = {
            FrameKind.ROUND_CLOSED: self._on_round_closed,
            FrameKind.PREPARE: self._on_prepare,
            FrameKind.PROMISE: self._on_promise,
            FrameKind.NACK: self._on_nack,
            FrameKind.FETCHED: self._on_fetched,
            FrameKind.FETCH_CHOSEN: self._on_fetch_chosen,
            FrameKind.CHOSEN: self._on_chosen,
            FrameKind.CHOSEN_GONE: self._on_chosen_gone,
            FrameKind.TRANSFER: self._on_transfer,
            FrameKind.STOPPED_LEADING: self._on_stopped_leading,
        }

    # ---- the gate ----------------------------------------------------------------------------------------

    def on_frame(self, frame: bytes, now_us: int) -> list[Intent]:
        """Take one cold frame and return what it leads to. Malformed ones lead to nothing."""
        try:
            fields = decode_frame(frame)
            payload = fields.pop("payload")
            handler = self._handlers.get(fields["kind"])
            return handler(fields, payload, now_us) if handler else []
        except ValueError:
            return []  # a peer's mistake; the frame passed its checksum, so it is not worth a retry

    def tick(self, now_us: int) -> list[Intent]:
        """Let time pass: start, repeat or give up attempts. Call it at :attr:`deadline_us` or more often."""
        intents: list[Intent] = []
        if self.proposer.candidate_ballot:
            if now_us >= self._attempt_until_us:
                self._fail(now_us)
            elif now_us >= self._resend_at_us:
                self._resend_at_us = now_us + self._retry_us
                intents.append(
                    Campaign(ballot=self.proposer.candidate_ballot, from_slot=self._chosen_upto + 1)
                )
                intents.extend(self._conclude(now_us, is_retry=True))
        elif self._reclaim_at_us is not None and now_us >= self._reclaim_at_us:
            self._reclaim_at_us = None
            self._last_reclaim_us = now_us
            if self._led_ballot:
                intents.extend(self._start(now_us))
        elif self.election.is_due(now_us) and (self.config_slot or self._all_heard or self._chosen_upto):
            intents.extend(self._start(now_us))
        return intents

    @property
    def deadline_us(self) -> int | None:
        """When :meth:`tick` wants to be called next; ``None`` if only a frame can change anything."""
        if self.proposer.candidate_ballot:
            return min(self._attempt_until_us, self._resend_at_us)
        waits = [at for at in (self._reclaim_at_us, self.election.deadline_us) if at is not None]
        return min(waits, default=None)

    def hand_over(self, candidates: Sequence[int]) -> list[Intent]:
        """Return the intent to hand leadership to the first of ``candidates`` that is another member."""
        for heir in candidates:
            if heir != self.node_id and heir in self.members:
                return [Transfer(heir=heir)]
        return []

    # ---- phase 1 -----------------------------------------------------------------------------------------

    def _start(self, now_us: int) -> list[Intent]:
        try:
            ballot = ballots.next_above(max(self._promised, self._highest_seen), self.node_id)
        except ValueError:
            return []  # the ballots are used up: refusing is the only safe answer (P12)
        self._promised = ballot
        self.proposer.start_phase_1(ballot, frozenset(self.members), needs_all=self.config_slot == 0)
        self._attempt_until_us = now_us + self.election.attempt_us(self._attempt_us_max)
        self._resend_at_us = now_us + self._retry_us
        return [Campaign(ballot=ballot, from_slot=self._chosen_upto + 1)]

    def _fail(self, now_us: int) -> None:
        self.proposer.abandon()
        self.election.on_failed(now_us)

    def _conclude(self, now_us: int, *, is_retry: bool = False) -> list[Intent]:
        """Lead if phase 1 is complete; otherwise ask for what is missing."""
        intents: list[Intent] = []
        if not self.proposer.candidate_ballot:
            return intents  # a late answer to an attempt that is over, or of an earlier life
        upto, reporter = self.proposer.best_chosen
        if upto > self._chosen_upto and reporter not in (0, self.node_id):
            self.learner.aim(upto)
            return self._catch_up(reporter, True, now_us)
        result = self.proposer.maybe_lead(self._chosen_upto, self._first_configuration())
        if isinstance(result, Lead):
            self.proposer.abandon()
            self._led_ballot = result.ballot
            self.election.on_lead(now_us)
            self._reclaim_at_us = None  # whatever was promised below this ballot can follow again
            intents.append(result)
        elif result is not None:
            for wanted in result:
                if self.proposer.mark_asked(wanted) or is_retry:
                    intents.append(
                        self._send(FrameKind.FETCH, wanted.node_id, slot=wanted.slot, ballot=wanted.ballot)
                    )
        return intents

    def _first_configuration(self) -> tuple[int, bytes] | None:
        """The value of slot 1: the constructor's members, bound to the storage that each of them showed."""
        if self.config_slot or any(node not in self.proposer.promises for node in self.members):
            return None
        members = {
            node: Member(address=address, storage=self.proposer.promises[node].storage)
            for node, address in self.members.items()
        }
        size = len(members) // 2 + 1
        value = Configuration(members=members, prepare_size=size, accept_size=size).encode()
        return ValueKind.CONFIGURATION, value

    def _on_promise(self, fields: dict[str, int], page: bytes, now_us: int) -> list[Intent]:
        if not self.proposer.on_promise(
            fields["sender"], fields["incarnation"], fields["ballot"], fields["mark"], page
        ):
            return []
        if fields["sender"] == self.node_id:
            self._chosen_upto = max(self._chosen_upto, fields["mark"])
        self._note_progress(now_us)
        if not self.proposer.promises[fields["sender"]].is_complete:
            return []  # it counts as a whole or not at all: looking at every slot after every page takes for ever
        return self._conclude(now_us)

    def _note_progress(self, now_us: int) -> None:
        """Phase 1 moves: do not ask for everything again, and do not give up while it does.

        To ask again means new reports from all members, which replace what has come of the older ones.
        """
        self._resend_at_us = max(self._resend_at_us, now_us + self._retry_us)
        self._attempt_until_us = max(self._attempt_until_us, now_us + self._attempt_us_max)

    def _on_fetched(self, fields: dict[str, int], value: bytes, now_us: int) -> list[Intent]:
        status, kind = fields["detail"] >> 8, fields["detail"] & 0xFF
        if status == FetchStatus.FETCH_OK:
            self.proposer.on_fetched(fields["slot"], fields["ballot"], kind, value)
            self._note_progress(now_us)
            if self.proposer.misses_values:
                return []
        elif status == FetchStatus.FETCH_DAMAGED:
            self.proposer.on_fetch_failed(fields["slot"], fields["sender"])
        elif status == FetchStatus.FETCH_TRIMMED:
            self.proposer.on_trimmed(fields["sender"], fields["mark"])
        elif status == FetchStatus.FETCH_REPLACED:
            if not self.proposer.waits_for(fields["slot"], fields["ballot"], fields["sender"]):
                return []  # a late answer to an earlier attempt says nothing about this one
            self._fail(now_us)  # a higher ballot is about, or the slot was let go: begin anew
            return []
        return self._conclude(now_us)

    def _on_nack(self, fields: dict[str, int], _payload: bytes, now_us: int) -> list[Intent]:
        ballot, reason = fields["ballot"], fields["detail"]
        if reason == NackReason.NACK_PROMISED and fields["mark"] <= ballots.MAX:
            self._highest_seen = max(self._highest_seen, fields["mark"])
        if self.proposer.candidate_ballot and ballot == self.proposer.candidate_ballot:
            self._fail(now_us)
        elif ballot == self._led_ballot and self._led_ballot and reason == NackReason.NACK_PROMISED:
            # A member promised a higher ballot and can no longer follow. The leader repeats phase 1 above it,
            # at most once an election timeout, so that the member is not lost for good (h20).
            earliest = max(now_us + self._retry_us, self._last_reclaim_us + self._reclaim_us)
            self._reclaim_at_us = self._reclaim_at_us or earliest
        return []

    def _on_prepare(self, fields: dict[str, int], _payload: bytes, now_us: int) -> list[Intent]:
        self._promised = max(self._promised, fields["ballot"])
        if self.proposer.candidate_ballot and fields["ballot"] > self.proposer.candidate_ballot:
            self._fail(now_us)
        self.election.postpone(now_us)
        return []

    def _on_transfer(self, _fields: dict[str, int], _payload: bytes, now_us: int) -> list[Intent]:
        return [] if self.proposer.candidate_ballot else self._start(now_us)

    def _on_stopped_leading(self, fields: dict[str, int], _payload: bytes, now_us: int) -> list[Intent]:
        if fields["ballot"] == self._led_ballot:
            self._led_ballot = 0
        if not self.proposer.candidate_ballot:
            self.election.on_stopped(now_us)
        return []

    # ---- rounds and catch-up -----------------------------------------------------------------------------

    def _on_round_closed(self, fields: dict[str, int], payload: bytes, now_us: int) -> list[Intent]:
        _round, promised, chosen, ballot, leader, best, config_slot, flags, peer, _heard, patience_us = (
            _SUMMARY.unpack(payload)
        )
        self.election.patience_us = patience_us
        self._promised = max(self._promised, promised)
        self._chosen_upto = max(self._chosen_upto, chosen)
        self._led_ballot = ballot
        self._all_heard = bool(flags & RoundFlag.ROUND_ALL_HEARD)
        self.config_slot = max(self.config_slot, config_slot)
        may_try = bool(flags & RoundFlag.ROUND_CANDIDATE) and not self.proposer.candidate_ballot
        self.election.on_round(may_try, bool(flags & RoundFlag.ROUND_HAPPY), now_us)
        if best > chosen:
            self._best_peer = peer
            self.learner.aim(best)
        elif not self._best_peer:
            self._best_peer = ballots.node_of(leader)
        if fields["detail"]:
            self.learner.end_burst()
        intents = self._catch_up(self._best_peer, bool(flags & RoundFlag.ROUND_LAGGING), now_us)
        if self.proposer.candidate_ballot:
            intents.extend(self._conclude(now_us))
        return intents

    def _catch_up(self, peer: int, is_lagging: bool, now_us: int) -> list[Intent]:
        wanted = self.learner.next_range(
            self._chosen_upto, self._turn_from(peer), is_lagging, self._retry_us, now_us
        )
        if wanted is None or wanted.node_id == self.node_id:
            return []
        return [self._send(FrameKind.FETCH_CHOSEN, wanted.node_id, slot=wanted.first, mark=wanted.last)]

    def _turn_from(self, peer: int) -> int:
        """Return ``peer``, or another member by turns while requests bring nothing: its copy may be damaged."""
        others = sorted(node for node in self.members if node != self.node_id)
        if not self.learner.misses or not others:
            return peer
        first = others.index(peer) if peer in others else 0
        return others[(first + self.learner.misses) % len(others)]

    def _on_fetch_chosen(self, fields: dict[str, int], _payload: bytes, _now_us: int) -> list[Intent]:
        """Serve a peer that lags: one burst of chosen values, read from the log of this node."""
        first, last, asker = fields["slot"], fields["mark"], fields["sender"]
        if first < self._log.first_slot:
            return [self._send(FrameKind.CHOSEN_GONE, asker, slot=first, mark=self._log.first_slot - 1)]
        try:
            values = self._log.read_slots(first, last, BURST_BYTES)
        except StorageError:
            return []  # damaged here: no reason to stop, another member has it; the asker turns to that one
        if not values:
            return []
        end = values[-1][0]
        return [
            self._send(FrameKind.CHOSEN, asker, slot=slot, mark=end, detail=kind, payload=value)
            for slot, kind, value in values
        ]

    def _on_chosen(self, fields: dict[str, int], value: bytes, _now_us: int) -> list[Intent]:
        """A configuration was chosen here: bind its members."""
        if fields["detail"] != ValueKind.CONFIGURATION or fields["slot"] <= self.config_slot:
            return []
        configuration = Configuration.decode(value)
        self.config_slot = fields["slot"]
        self.members = {node: member.address for node, member in configuration.members.items()}
        storages = {node: member.storage for node, member in configuration.members.items()}
        return [Configure(slot=fields["slot"], members=storages)]

    def _on_chosen_gone(self, _fields: dict[str, int], _payload: bytes, _now_us: int) -> list[Intent]:
        self._best_peer = 0  # only a snapshot of that peer could help; ask somebody else
        return []

    def _send(self, kind: int, receiver: int, **fields: Any) -> Send:
        return Send(frame=encode_frame(kind, receiver=receiver, **self._frame_fields, **fields))
