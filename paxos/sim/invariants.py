"""The invariants, one function each, checked against the history after every step that could break them.

Ids as in ``docs/protocol.md``. A function raises :class:`Violation` with its id and the values; it never
repairs, and nothing catches it inside a run. What the checks read is the wire, the durable records and what
the nodes hand to the application; the roles' own opinion of themselves is only used where that opinion is
the claim (I5, I11).
"""

from __future__ import annotations

from itertools import combinations
from zlib import crc32

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos._core.effects import ChosenView, RecordView
from paxos.errors import InvariantViolation
from paxos.sim import wire
from paxos.sim.history import (
    BATCH,
    NOOP,
    RECORD_ACCEPT,
    RECORD_CHOSEN,
    RECORD_MARK,
    RECORD_PROMISE,
    RECORD_TRIM,
    Applied,
    Durable,
    Held,
    History,
    Marks,
)


class Violation(InvariantViolation):
    """An invariant does not hold; ``id`` names it."""

    def __init__(self, id: str, text: str) -> None:
        super().__init__(f"{id}: {text}")
        self.id = id


def text(ballot: int) -> str:
    """Return a ballot as people read it."""
    return ballots.text(ballot)


def short(held: Held | None) -> str:
    """Return a value as people read it."""
    if held is None:
        return "nothing"
    name = {1: "noop", 2: "batch", 3: "configuration"}.get(held[0], f"kind {held[0]}")
    return f"{name}({len(held[1])} bytes, {held[1][-16:]!r})"


# --- proposals -----------------------------------------------------------------------------------------------


def i1_one_value_per_ballot(history: History, slot: int, ballot: int, held: Held, where: str) -> None:
    """I1: for a slot and ballot, all proposals and votes carry the same value."""
    known = history.proposals.get((slot, ballot))
    if known is not None and known != held:
        raise Violation(
            "I1", f"slot {slot} ballot {text(ballot)}: {short(known)} and, in {where}, {short(held)}"
        )


def i2_shows_safe(history: History, slot: int, ballot: int, held: Held) -> None:
    """I2: some quorum that promised at least ``ballot`` shows that no other value can be chosen below it.

    Votes below a durable promise are final, so the question can be asked of the disks at any later time.
    """
    if history.chosen.get(slot) == held:
        return
    promised = [node for node in history.members if history.promised_ever[node] >= ballot]
    if len(promised) < history.quorum:
        raise Violation(
            "I2",
            f"slot {slot} proposed at {text(ballot)}, which only {promised} of {history.members} have "
            f"durably promised",
        )
    if all(earlier >= ballot for earlier in history.ballots_of_slot.get(slot, ())):
        return
    for quorum in combinations(promised, history.quorum):
        seen = [history.highest_vote_below(node, slot, ballot) for node in quorum]
        highest = max((vote for vote in seen if vote is not None), key=lambda vote: vote[0], default=None)
        if highest is None or highest[1] == held:
            return
    raise Violation(
        "I2",
        f"slot {slot} ballot {text(ballot)}: {short(held)} is not the highest vote of any quorum among "
        f"{promised}; earlier ballots there: {sorted(map(text, history.ballots_of_slot[slot]))}",
    )


def i4_nontriviality(history: History, slot: int, held: Held) -> None:
    """I4: a batch holds commands that clients submitted at its origin, under the tickets they were given."""
    if held[0] != BATCH:
        return
    origin, incarnation, first_ticket, commands = codec.decode_batch(held[1])
    submitted = history.submitted.get((origin, incarnation), [])
    if submitted[first_ticket - 1 : first_ticket - 1 + len(commands)] != commands:
        raise Violation(
            "I4",
            f"slot {slot}: tickets {first_ticket}..{first_ticket + len(commands) - 1} of node {origin} "
            f"incarnation {incarnation} were not submitted so",
        )


def i9_leader_completeness(history: History, slot: int, ballot: int, held: Held) -> None:
    """I9: a proposal above the ballot at which its slot was chosen carries the chosen value."""
    chosen = history.chosen.get(slot)
    if chosen is not None and chosen != held and ballot > history.chosen_ballot[slot]:
        raise Violation(
            "I9",
            f"slot {slot} was chosen at {text(history.chosen_ballot[slot])} with {short(chosen)}; "
            f"{text(ballot)} proposes {short(held)}",
        )


def i9_no_slot_skipped(history: History, slot: int, ballot: int) -> None:
    """I9: a leader proposes a slot only when the one before was proposed by it or is chosen."""
    if slot > 1 and (slot - 1, ballot) not in history.proposals and slot - 1 not in history.chosen:
        raise Violation("I9", f"{text(ballot)} proposes slot {slot} before slot {slot - 1}")


def i10_one_leader_per_ballot(history: History, ballot: int, node: int, incarnation: int) -> None:
    """I10: a ballot belongs to the node in its low bits, and to one incarnation of it."""
    if ballots.node_of(ballot) != node:
        raise Violation("I10", f"node {node} uses ballot {text(ballot)}")
    known = history.leaders.setdefault(ballot, (node, incarnation))
    if known != (node, incarnation):
        raise Violation(
            "I10", f"ballot {text(ballot)} is used by incarnations {known[1]} and {incarnation} of {node}"
        )


def check_proposal(history: History, slot: int, ballot: int, held: Held, where: str) -> None:
    """Check a value that was proposed or voted for, and remember it."""
    if not history.is_proposal_new(slot, ballot):
        i1_one_value_per_ballot(history, slot, ballot, held, where)
        return
    i4_nontriviality(history, slot, held)
    i9_leader_completeness(history, slot, ballot, held)
    i9_no_slot_skipped(history, slot, ballot)
    i2_shows_safe(history, slot, ballot, held)
    history.proposals[slot, ballot] = held
    if held[0] == NOOP and slot < history.slot_max:
        history.events["noop_below_older_votes"] += 1


# --- durable records -----------------------------------------------------------------------------------------


def i3_consistency(history: History, slot: int, held: Held, ballot: int) -> None:
    """I3: at most one value is ever chosen in a slot."""
    chosen = history.chosen.get(slot)
    if chosen is not None and chosen != held:
        raise Violation(
            "I3",
            f"slot {slot} is chosen twice: {short(chosen)} at {text(history.chosen_ballot[slot])} and "
            f"{short(held)} at {text(ballot)}",
        )


def i6_promise_is_monotone(node: int, state: Durable, record: RecordView) -> None:
    """I6: no vote below the promise, and none above what a record of its own promises [h7]."""
    if record.kind == RECORD_ACCEPT and record.ballot != state.promised:
        raise Violation(
            "I6",
            f"node {node} wrote a vote for slot {record.slot} at {text(record.ballot)} while its log "
            f"promises {text(state.promised)}",
        )
    if record.kind in (RECORD_PROMISE, RECORD_MARK) and record.ballot < state.promised:
        raise Violation(
            "I6", f"node {node} wrote the promise {text(record.ballot)} after {text(state.promised)}"
        )


def i5_learned_value_is_chosen(history: History, node: int, record: RecordView) -> None:
    """I5: what is recorded as chosen is chosen, and a vote never replaces a chosen value by another."""
    held = (record.value_kind, record.value or b"")
    chosen = history.chosen.get(record.slot)
    if record.kind == RECORD_CHOSEN and chosen != held:
        raise Violation(
            "I5",
            f"node {node} recorded {short(held)} as chosen in slot {record.slot}, which holds {short(chosen)}",
        )
    if record.kind == RECORD_ACCEPT and record.slot <= history.durable[node].prefix and chosen != held:
        raise Violation(
            "I5", f"node {node} overwrote slot {record.slot}, chosen as {short(chosen)}, by {short(held)}"
        )


def check_record(history: History, node: int, record: RecordView) -> None:
    """Check one record that has become durable on ``node``, and remember it."""
    state = history.durable[node]
    i6_promise_is_monotone(node, state, record)
    i11_trim_is_covered(history, node, record)
    if node in history.quarantined:
        h5_quarantine_writes_no_vote(node, state, record)
    if node in history.foreign:
        state.add(record)  # its own business: nobody may listen to it
        return
    if record.kind == RECORD_ACCEPT:
        held = (record.value_kind, record.value or b"")
        check_proposal(history, record.slot, record.ballot, held, f"the log of node {node}")
        history.votes_ever[node].setdefault(record.slot, {})[record.ballot] = held
        if history.add_vote(node, record.slot, record.ballot):
            i3_consistency(history, record.slot, held, record.ballot)
            history.add_chosen(record.slot, held, record.ballot)
    if record.kind in (RECORD_ACCEPT, RECORD_CHOSEN):
        i5_learned_value_is_chosen(history, node, record)
    if (
        record.mark
        and history.durable_prefix(node, record.mark) < record.mark
        and record.kind != RECORD_CHOSEN
    ):
        raise Violation(
            "I6",
            f"node {node}: a record says chosen up to {record.mark}, durable are the chosen values up to "
            f"{state.prefix} [h3]",
        )
    state.add(record)
    history.promised_ever[node] = max(history.promised_ever[node], state.promised)


def i5_restart_loses_nothing(history: History, node: int, records: list[RecordView]) -> None:
    """I5, I6: what was durable before a crash is durable after it, unless the disk is known to be damaged."""
    before = history.durable[node]
    after = Durable()
    for record in records:
        after.add(record)
    after.prefix = history.snapshots[node]
    history.durable[node] = after
    if node in history.quarantined:
        return
    if after.promised < before.promised:
        raise Violation(
            "I6",
            f"node {node} had promised {text(before.promised)}, after the restart {text(after.promised)}",
        )
    for slot, best in before.best.items():
        if slot <= history.snapshots[node]:
            continue  # a snapshot says it
        found = after.best.get(slot)
        if found is None or found.rank < best.rank:
            raise Violation(
                "I5", f"node {node} lost its record of slot {slot} at {text(best.rank)} in a restart"
            )
    for slot, votes in before.votes.items():
        # A vote whose value has rotted since was cast all the same.
        after.votes.setdefault(slot, {}).update(votes)


# --- disks that cannot be trusted ----------------------------------------------------------------------------

VOTING_FRAMES = {
    wire.Kind.PREPARE,
    wire.Kind.PROMISE,
    wire.Kind.OPEN,
    wire.Kind.ACCEPT,
    wire.Kind.ACCEPT_REF,
    wire.Kind.ACCEPTED,
    wire.Kind.DECIDE,
}


def h5_quarantine_writes_no_vote(node: int, state: Durable, record: RecordView) -> None:
    """h5: a node whose promises may be lost writes neither a promise nor a vote."""
    if record.kind in (RECORD_PROMISE, RECORD_ACCEPT) or (
        record.kind == RECORD_MARK and record.ballot > state.promised
    ):
        raise Violation(
            "H5",
            f"node {node} is in quarantine and wrote a record of kind {record.kind} at {text(record.ballot)}",
        )


def h5_quarantine_sends_no_vote(frame: wire.Frame) -> None:
    """h5: nothing that could count comes from a node in quarantine; a Pong says that it does not vote."""
    if frame.kind in VOTING_FRAMES:
        raise Violation("H5", f"node {frame.sender} is in quarantine and sends {wire.KIND_NAMES[frame.kind]}")
    if frame.kind == wire.Kind.PONG and wire.pong(frame.data).flags & (
        codec.PongFlag.PONG_VOTES | codec.PongFlag.PONG_LEADS
    ):
        raise Violation("H5", f"node {frame.sender} is in quarantine and says in a Pong that it votes")


def s1_foreign_frame_is_not_admitted(node: int, data: bytes, admitted: int) -> None:
    """S1: a frame from a storage that is not the bound one is dropped at the gate.

    Only its Hello is looked at, and a refusal, which can but take a vote away.
    """
    frame = wire.view(data)
    if admitted and frame.kind not in (wire.Kind.HELLO, wire.Kind.REFUSE):
        raise Violation(
            "S1",
            f"node {node} took a {wire.KIND_NAMES[frame.kind]} of node {frame.sender}, incarnation "
            f"{frame.incarnation}, from a storage that was never bound",
        )


def d8_poisoned_is_silent(node: int, effects: list[object], leads: bool) -> None:
    """D8: after a failed append or sync a node says nothing, writes nothing and leads nobody."""
    if effects or leads:
        raise Violation("D8", f"node {node} goes on after a disk error: leads {leads}, {effects[:3]}")


# --- frames --------------------------------------------------------------------------------------------------


def i6_accepted_is_durable(history: History, frame: wire.Frame) -> None:
    """I6: ACCEPTED(b, upto) says only what is durable: every slot from a start that was opened up to upto."""
    node, ballot, upto = frame.sender, frame.ballot, frame.slot
    starts = history.opens.get((node, ballot), [])
    if upto + 1 in starts:
        return
    history.durable_prefix(node, upto)
    low = history.durable[node].covered_from(ballot, upto)
    if not any(low <= start <= upto for start in starts):
        raise Violation(
            "I6",
            f"node {node} acknowledged up to {upto} at {text(ballot)}; durable from {low}, opened at {starts}",
        )


def i6_prefix_is_durable(history: History, node: int, upto: int, what: str) -> None:
    """I6: a reported chosen_upto covers only slots whose chosen values are durable at the reporter."""
    if history.durable[node].prefix < upto and history.durable_prefix(node, upto) < upto:
        raise Violation(
            "I6",
            f"{what} of node {node} reports chosen up to {upto}; chosen and durable there up to "
            f"{history.durable[node].prefix}",
        )


def i6_pong_is_durable(history: History, frame: wire.Frame) -> None:
    """I6: a heartbeat answer reports no promise, vote or choice that is not durable (D3)."""
    pong = wire.pong(frame.data)
    node = frame.sender
    state = history.durable[node]
    if pong.promised > state.promised:
        raise Violation(
            "I6", f"a Pong of node {node} reports {text(pong.promised)}, durable is {text(state.promised)}"
        )
    i6_prefix_is_durable(history, node, pong.chosen_upto, "a Pong")
    if pong.stream_ballot and pong.stream_upto >= pong.stream_start:
        history.durable_prefix(node, pong.stream_upto)
        low = state.covered_from(pong.stream_ballot, pong.stream_upto)
        if low > pong.stream_start:
            raise Violation(
                "I6",
                f"a Pong of node {node} reports slots {pong.stream_start}..{pong.stream_upto} at "
                f"{text(pong.stream_ballot)}; durable from {low}",
            )


def i6_promised_is_durable(history: History, frame: wire.Frame, promised: int) -> None:
    """I6: a promise that leaves in any frame is durable."""
    durable = history.durable[frame.sender].promised
    if promised > durable:
        name = wire.KIND_NAMES[frame.kind]
        raise Violation(
            "I6", f"{name} of node {frame.sender} reveals {text(promised)}, durable is {text(durable)}"
        )


def i7_promise_entries_are_true(history: History, frame: wire.Frame, page: wire.PromisePage) -> None:
    """I7: every reported vote is a durable vote of this node."""
    node = frame.sender
    state = history.durable[node]
    for slot, ballot, _, _, _, _ in page.entries:
        best = state.best.get(slot)
        if best is not None and best.rank == ballot:
            continue
        if ballot == wire.BALLOT_CHOSEN and slot <= history.durable_prefix(node, slot):
            continue
        if ballot not in state.votes.get(slot, {}):
            raise Violation(
                "I7", f"node {node} promised {text(frame.ballot)} with a vote {text(ballot)} in slot {slot}"
            )


def i7_promise_is_complete(history: History, frame: wire.Frame, reported: dict[int, int], upto: int) -> None:
    """I7: no durable vote below the ballot is missing, and none is reported at less than its rank.

    Slots up to the ``chosen_upto`` that the promise carries may be left out: the candidate must learn those.
    """
    node = frame.sender
    for slot, votes in history.durable[node].votes.items():
        if slot < frame.slot or slot <= upto:
            continue
        highest = max((ballot for ballot in votes if ballot < frame.ballot), default=0)
        if reported.get(slot, 0) < highest:
            raise Violation(
                "I7",
                f"node {node} promised {text(frame.ballot)} from {frame.slot} and reported "
                f"{text(reported.get(slot, 0))} for slot {slot}, where it voted at {text(highest)}",
            )


def i8_announced_is_chosen(history: History, node: int, upto: int, what: str) -> None:
    """I8: what a leader announces as chosen is on a durable quorum."""
    if upto > history.chosen_prefix:
        raise Violation(
            "I8", f"{what} of node {node} says chosen up to {upto}; the disks say {history.chosen_prefix}"
        )


def i8_served_value_is_chosen(history: History, frame: wire.Frame) -> None:
    """I8, I6: a CHOSEN frame carries the chosen value, and its sender holds it durably."""
    held = (frame.detail, frame.payload)
    if history.chosen.get(frame.slot) != held:
        raise Violation("I8", f"node {frame.sender} serves {short(held)} as chosen in slot {frame.slot}")
    best = history.durable[frame.sender].best.get(frame.slot)
    if best is None or best.held != held:
        raise Violation(
            "I6",
            f"node {frame.sender} serves slot {frame.slot} but durably holds {short(best and best.held)}",
        )


def i7_fetched_value_is_the_vote(history: History, frame: wire.Frame) -> None:
    """I7: FETCHED carries the value that its sender durably accepted at exactly that ballot."""
    if frame.detail >> 8 != codec.FetchStatus.FETCH_OK:
        return
    held = (frame.detail & 0xFF, frame.payload)
    state = history.durable[frame.sender]
    best = state.best.get(frame.slot)
    if best is not None and best.rank == wire.BALLOT_CHOSEN and best.held == held:
        return
    if state.votes.get(frame.slot, {}).get(frame.ballot) != held:
        raise Violation(
            "I7",
            f"node {frame.sender} answered a fetch of slot {frame.slot} at {text(frame.ballot)} with {short(held)}",
        )


# --- the application -----------------------------------------------------------------------------------------


def i12_applied_in_order(history: History, node: int, chosen: ChosenView) -> None:
    """I12: each slot is handed on once, in order, from slot 1 in every life of a node."""
    if chosen.slot != history.applied_upto[node] + 1:
        raise Violation("I12", f"node {node} applies slot {chosen.slot} after {history.applied_upto[node]}")


def i12_snapshot_is_the_log(history: History, node: int, upto: int, last_index: int) -> None:
    """I12, I8: a snapshot covers chosen slots only, and its last index is the log's."""
    if upto > len(history.log) or history.index_at[upto] != last_index:
        raise Violation("I12", f"the snapshot of node {node} at slot {upto} ends with index {last_index}")


def i11_trim_is_covered(history: History, node: int, record: RecordView) -> None:
    """I11: only what a durable snapshot of the same node covers is trimmed."""
    if record.kind == RECORD_TRIM and record.slot > history.snapshots[node]:
        raise Violation(
            "I11", f"node {node} trimmed up to {record.slot}, its snapshot is at {history.snapshots[node]}"
        )


def i12_same_log(history: History, node: int, chosen: ChosenView, held: Held) -> None:
    """I12, G3: every node applies the same value, index and count in a slot; no command is applied twice."""
    if chosen.slot > len(history.log):
        index, count = history.expected_index(chosen, held)
        digest = hash_chain(history.log[-1].digest if history.log else 0, held)
        history.log.append(Applied(held, index, count, digest))
        history.index_at.append(history.last_index)
        if index:
            exactly_once(history, chosen.slot, held)
    entry = history.log[chosen.slot - 1]
    if entry.held != held:
        raise Violation(
            "I12", f"slot {chosen.slot}: node {node} applies {short(held)}, others {short(entry.held)}"
        )
    if chosen.index != entry.first_index or (entry.first_index and chosen.count != entry.command_count):
        raise Violation(
            "I12",
            f"slot {chosen.slot}: node {node} applies index {chosen.index} (count {chosen.count}), "
            f"expected {entry.first_index} (count {entry.command_count})",
        )


def hash_chain(previous: int, held: Held) -> int:
    """Return the digest of a log that is one value longer."""
    return crc32(held[1], crc32(previous.to_bytes(4, "little") + bytes([held[0]])))


def exactly_once(history: History, slot: int, held: Held) -> None:
    """G3: no command gets two indexes."""
    for command in codec.decode_batch(held[1])[3]:
        if command in history.commands_applied:
            raise Violation("G3", f"{command!r} is applied a second time, in slot {slot}")
        history.commands_applied.add(command)


def i8_applied_is_chosen(history: History, node: int, chosen: ChosenView, held: Held) -> None:
    """I8: nothing is applied that is not on a durable quorum."""
    if history.chosen.get(chosen.slot) != held:
        raise Violation(
            "I8",
            f"node {node} applies {short(held)} in slot {chosen.slot}, where "
            f"{short(history.chosen.get(chosen.slot))} is chosen",
        )


def i11_state_order(node: int, marks: Marks) -> None:
    """I11: trimmed <= applied <= chosen <= known <= last slot held, on every node."""
    _, trimmed, applied, chosen_upto, known_upto, last = marks
    if not trimmed <= applied <= chosen_upto <= known_upto <= last:
        raise Violation("I11", f"node {node} is out of order: {marks}")


def i5_marks_never_go_back(node: int, before: Marks, after: Marks) -> None:
    """I5: within one life of a node no mark moves back."""
    if any(new < old for old, new in zip(before, after, strict=True)):
        raise Violation("I5", f"node {node} went back from {before} to {after}")


def i6_own_promise_is_durable(history: History, node: int, marks: Marks) -> None:
    """I6: what a node believes to have promised durably is what its log says."""
    durable = history.durable[node].promised
    if marks.promised != durable:
        raise Violation(
            "I6",
            f"node {node} believes in a durable promise {text(marks.promised)}, its log says {text(durable)}",
        )


def i7_recovered_state_is_the_disk(history: History, node: int, accepted: dict[int, int], base: int) -> None:
    """I7: after a restart the acceptor holds exactly what its log says, slot by slot.

    Args:
        history: knows the disk.
        node: that has just recovered.
        accepted: slot to the ballot that the acceptor holds.
        base: slots below it were let go on purpose; they are known to be chosen.
    """
    expected = {slot: vote.rank for slot, vote in history.durable[node].best.items() if slot >= base}
    if accepted != expected:
        differing = sorted(
            slot for slot in accepted.keys() | expected.keys() if accepted.get(slot) != expected.get(slot)
        )
        raise Violation("I7", f"node {node} recovered slots {differing[:5]} otherwise than its log says")


def i16_read_is_recent(node: int, number: int, slot: int, floor: int) -> None:
    """I16: a read sees all that anybody had applied when it began."""
    if slot < floor:
        raise Violation(
            "I16", f"read {number} at node {node} saw slots up to {slot}; {floor} was applied when it began"
        )
