"""What one node says and writes, held against its own disk: the invariants that need no look at the others.

These are checked once for each outcome in the table; the functions are those of the simulator.
"""

from __future__ import annotations

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos._core.effects import RecordKind
from paxos.sim import invariants, wire
from paxos.sim.explore.replica import Effects, Replica
from paxos.sim.history import Durable, History

Kind = wire.Kind


def value_text(kind: int, value: bytes) -> str:
    """Return a value as people read it."""
    if kind == codec.ValueKind.BATCH:
        return "+".join(command.decode() for command in codec.decode_batch(value)[3])
    return codec.ValueKind(kind).name.lower()


def check(replica: Replica, effects: Effects, promised_before: int) -> None:
    """Check what one input led to.

    Raises:
        Violation: I5, I6 or I7.
    """
    node = replica.id
    if replica.engine.fault_code:
        raise invariants.Violation("ENGINE", f"node {node} stopped: {replica.engine.fault_text}")
    durable = Durable()
    for record in replica.disk:
        invariants.i6_promise_is_monotone(node, durable, record)
        durable.add(record)
    durable.prefix = len(replica.log.values)
    if durable.promised < promised_before:
        raise invariants.Violation(
            "I6",
            f"node {node} had promised {ballots.text(promised_before)}, then {ballots.text(durable.promised)}",
        )
    history = History(list(replica.members))
    history.durable[node] = durable
    seen = replica.engine.inspect()
    if any(record.kind == RecordKind.RECORD_INCARNATION for record in effects.synced):
        accepted = {slot: held[0] for slot, held in seen["accepted"].items()}
        invariants.i7_recovered_state_is_the_disk(history, node, accepted, seen["slots_base"])
    reported: dict[tuple[int, int], dict[int, int]] = {}
    for data in effects.frames:
        check_frame(history, durable, wire.view(data), seen["stream_start"], reported)


def check_frame(
    history: History,
    durable: Durable,
    frame: wire.Frame,
    stream_start: int,
    reported: dict[tuple[int, int], dict[int, int]],
) -> None:
    """Check one frame that leaves."""
    if frame.kind == Kind.PREPARE:
        invariants.i6_promised_is_durable(history, frame, frame.ballot)
    elif frame.kind == Kind.NACK:
        invariants.i6_promised_is_durable(history, frame, frame.mark)
    elif frame.kind == Kind.FETCHED:
        invariants.i7_fetched_value_is_the_vote(history, frame)
    elif frame.kind == Kind.ACCEPTED:
        low = durable.covered_from(frame.ballot, frame.slot)
        if frame.slot >= stream_start and low > stream_start:
            raise invariants.Violation(
                "I6",
                f"node {frame.sender} acknowledged up to {frame.slot} at {ballots.text(frame.ballot)}; durable "
                f"from {low}, opened at {stream_start}",
            )
    elif frame.kind == Kind.PROMISE:
        invariants.i6_promised_is_durable(history, frame, frame.ballot)
        page = wire.promise(frame.data)
        check_entries(durable, frame, page)
        votes = reported.setdefault((frame.receiver, frame.ballot), {})
        votes.update({slot: ballot for slot, ballot, *_ in page.entries})
        if page.page + 1 == page.pages:
            check_complete(durable, frame, votes)


def check_entries(durable: Durable, frame: wire.Frame, page: wire.PromisePage) -> None:
    """I7: every reported vote is a durable vote of this node, or what it learned as chosen."""
    for slot, ballot, *_ in page.entries:
        best = durable.best.get(slot)
        if not (best is not None and best.rank == ballot) and ballot not in durable.votes.get(slot, {}):
            raise invariants.Violation(
                "I7",
                f"node {frame.sender} promised {ballots.text(frame.ballot)} with a vote "
                f"{ballots.text(ballot)} in slot {slot}",
            )


def check_complete(durable: Durable, frame: wire.Frame, reported: dict[int, int]) -> None:
    """I7: no durable vote is missing, and none is reported at less than its highest ballot."""
    for slot, votes in durable.votes.items():
        if slot < frame.slot or slot <= frame.mark:
            continue
        highest = max((ballot for ballot in votes if ballot < frame.ballot), default=0)
        if reported.get(slot, 0) < highest:
            raise invariants.Violation(
                "I7",
                f"node {frame.sender} promised {ballots.text(frame.ballot)} and reported "
                f"{ballots.text(reported.get(slot, 0))} for slot {slot}, where it voted at {ballots.text(highest)}",
            )
