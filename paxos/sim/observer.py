"""Feeds what happens in a run to the invariants: one method for each place where something can be seen."""

from __future__ import annotations

from collections.abc import Callable

from paxos._core import codec
from paxos._core.effects import ChosenView, RecordView
from paxos.sim import invariants as check
from paxos.sim import wire
from paxos.sim.history import BATCH, Applied, Durable, History

Kind = wire.Kind


class Observer:
    """Sees every frame that leaves a node, every record that becomes durable and every slot that is applied."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._pages: dict[tuple[int, int, int], tuple[int, dict[int, int]]] = {}
        self._on: dict[int, Callable[[wire.Frame], None]] = {
            Kind.PING: self._on_ping,
            Kind.PONG: self._on_pong,
            Kind.PREPARE: self._on_prepare,
            Kind.PROMISE: self._on_promise,
            Kind.OPEN: self._on_open,
            Kind.ACCEPT: self._on_accept,
            Kind.ACCEPT_REF: self._on_accept_ref,
            Kind.ACCEPTED: self._on_accepted,
            Kind.DECIDE: self._on_decide,
            Kind.NACK: self._on_nack,
            Kind.FETCHED: self._on_fetched,
            Kind.CHOSEN: self._on_chosen_frame,
        }

    # --- frames ----------------------------------------------------------------------------------------------

    def on_send(self, frame: wire.Frame) -> None:
        """Check one frame as it leaves its node."""
        if frame.sender in self.history.quarantined:
            check.h5_quarantine_sends_no_vote(frame)
        handler = self._on.get(frame.kind)
        if handler is not None:
            handler(frame)

    def _leads(self, frame: wire.Frame, ballot: int) -> None:
        check.i10_one_leader_per_ballot(self.history, ballot, frame.sender, frame.incarnation)

    def _on_ping(self, frame: wire.Frame) -> None:
        ping = wire.ping(frame.data)
        if ping.ballot:
            self._leads(frame, ping.ballot)
        check.i8_announced_is_chosen(self.history, frame.sender, ping.chosen_upto, "a Ping")

    def _on_pong(self, frame: wire.Frame) -> None:
        check.i6_pong_is_durable(self.history, frame)

    def _on_prepare(self, frame: wire.Frame) -> None:
        self._leads(frame, frame.ballot)
        check.i6_promised_is_durable(self.history, frame, frame.ballot)

    def _on_promise(self, frame: wire.Frame) -> None:
        history = self.history
        check.i6_promised_is_durable(history, frame, frame.ballot)
        check.i6_prefix_is_durable(history, frame.sender, frame.mark, "a Promise")
        page = wire.promise(frame.data)
        check.i7_promise_entries_are_true(history, frame, page)
        # All pages of one promise leave in one go, in order.
        key = (frame.sender, frame.receiver, frame.ballot)
        if page.page == 0:
            self._pages[key] = (0, {})
        expected, reported = self._pages.get(key, (-1, {}))
        if expected != page.page:
            return
        for slot, ballot, _, _, _, _ in page.entries:
            reported[slot] = max(ballot, reported.get(slot, 0))
        self._pages[key] = (expected + 1, reported)
        if page.page + 1 == page.pages:
            check.i7_promise_is_complete(history, frame, reported, frame.mark)
            if page.pages > 1:
                history.events["promise_in_pages"] += 1

    def _on_open(self, frame: wire.Frame) -> None:
        self._leads(frame, frame.ballot)
        self.history.opens.setdefault((frame.receiver, frame.ballot), []).append(frame.slot)

    def _on_accept(self, frame: wire.Frame) -> None:
        self._leads(frame, frame.ballot)
        held = (frame.detail, frame.payload)
        check.check_proposal(self.history, frame.slot, frame.ballot, held, "an Accept")
        check.i8_announced_is_chosen(self.history, frame.sender, frame.mark, "an Accept")

    def _on_accept_ref(self, frame: wire.Frame) -> None:
        self._leads(frame, frame.ballot)
        held = self.history.proposals.get((frame.slot, frame.mark))
        if held is None:
            raise check.Violation("I1", f"AcceptRef of slot {frame.slot} refers to an unknown ballot")
        check.check_proposal(self.history, frame.slot, frame.ballot, held, "an AcceptRef")

    def _on_accepted(self, frame: wire.Frame) -> None:
        check.i6_accepted_is_durable(self.history, frame)
        check.i6_prefix_is_durable(self.history, frame.sender, frame.mark, "an Accepted")

    def _on_decide(self, frame: wire.Frame) -> None:
        self._leads(frame, frame.ballot)
        check.i8_announced_is_chosen(self.history, frame.sender, frame.mark, "a Decide")

    def _on_nack(self, frame: wire.Frame) -> None:
        check.i6_promised_is_durable(self.history, frame, frame.mark)

    def _on_fetched(self, frame: wire.Frame) -> None:
        check.i7_fetched_value_is_the_vote(self.history, frame)

    def _on_chosen_frame(self, frame: wire.Frame) -> None:
        check.i8_served_value_is_chosen(self.history, frame)
        self.history.events["chosen_value_served"] += 1

    # --- disks -----------------------------------------------------------------------------------------------

    def on_durable(self, node: int, records: list[RecordView]) -> None:
        """Check records that have just become durable on ``node``."""
        for record in records:
            check.check_record(self.history, node, record)

    def on_restart(
        self, node: int, records: list[RecordView], snapshot: int = 0, is_untrusted: bool = False
    ) -> None:
        """Check what a node finds on its disk when it starts, beside a snapshot at slot ``snapshot``."""
        if is_untrusted:
            self.history.quarantined.add(node)
        check.i5_restart_loses_nothing(self.history, node, records)
        self.history.applied_upto[node] = snapshot

    def on_snapshot(self, node: int, upto: int, last_index: int) -> None:
        """Note that a snapshot of everything up to ``upto`` is durable on ``node``."""
        history = self.history
        check.i12_snapshot_is_the_log(history, node, upto, last_index)
        history.snapshots[node] = upto
        state = history.durable[node]
        state.prefix = max(state.prefix, upto)

    def on_wiped(self, node: int) -> None:
        """Note that ``node`` will start from an empty directory: what its id said so far stays said."""
        history = self.history
        history.foreign.add(node)
        history.quarantined.discard(node)
        history.durable[node] = Durable()
        history.snapshots[node] = 0

    # --- the application -------------------------------------------------------------------------------------

    def on_submitted(self, node: int, incarnation: int, command: bytes) -> int:
        """Note a client's command; return its ticket."""
        commands = self.history.submitted.setdefault((node, incarnation), [])
        commands.append(command)
        return len(commands)

    def on_installed(self, node: int, incarnation: int, upto: int, last_index: int) -> None:
        """Check that ``node`` went on behind a snapshot; its commands in there are done, as their sender learns."""
        history = self.history
        check.i12_snapshot_is_the_log(history, node, upto, last_index)
        if history.applied_upto[node] >= upto:
            raise check.Violation("I12", f"node {node} went back from {history.applied_upto[node]} to {upto}")
        for slot in range(history.applied_upto[node] + 1, upto + 1):
            entry = history.log[slot - 1]
            if entry.first_index:
                self._acknowledge(node, incarnation, entry)
        history.applied_upto[node] = upto

    def _acknowledge(self, node: int, incarnation: int, entry: Applied) -> None:
        origin, its_incarnation, _first, commands = codec.decode_batch(entry.held[1])
        if (origin, its_incarnation) == (node, incarnation):
            for offset, command in enumerate(commands):
                self.history.acknowledge(bytes(command), entry.first_index + offset)

    def on_applied(self, node: int, incarnation: int, chosen: ChosenView, value: bytes) -> None:
        """Check one slot that ``node`` hands to its state machine."""
        history = self.history
        held = (chosen.kind, value)
        check.i12_applied_in_order(history, node, chosen)
        check.i8_applied_is_chosen(history, node, chosen, held)
        check.i12_same_log(history, node, chosen, held)
        history.applied_upto[node] = chosen.slot
        if (
            chosen.kind == BATCH
            and chosen.index
            and (chosen.origin, chosen.incarnation) == (node, incarnation)
        ):
            first = chosen.first_ticket - 1
            for offset, command in enumerate(
                history.submitted[node, incarnation][first : first + chosen.count]
            ):
                history.acknowledge(command, chosen.index + offset)
