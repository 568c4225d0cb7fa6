"""Everything in an engine that decides what it does next, as plain data.

Two engines with equal :func:`state` answer every further frame, intent and batch alike: that is what lets an
exploration treat them as one (``paxos/sim/explore``). Left out are counters that only people read, positions
in the log file, and what depends on time alone; a test holds the list of fields against the ``.pxd`` files.
"""

from libc.stdint cimport uint64_t

from paxos._core.acceptor cimport AcceptorCore
from paxos._core.ballot cimport BALLOT_NONE
from paxos._core.engine cimport EngineCore
from paxos._core.heartbeat cimport HeartbeatCore
from paxos._core.learner cimport LearnerCore
from paxos._core.outbox cimport Outbox, Pending
from paxos._core.peers cimport Peers
from paxos._core.proposer cimport ProposerCore, Stream, Waiting
from paxos._core.slots cimport Slot, SlotTable


def state(EngineCore engine not None) -> tuple[object, ...]:
    """Return what ``engine`` holds, between two steps (with all effects taken), as nested tuples of integers."""
    return (
        (engine.fault, engine.fault_slot, engine.transfer_until_us != 0, engine.is_recovering, engine.is_disk_low),
        of_acceptor(engine.acceptor),
        of_learner(engine.learner),
        of_proposer(engine.proposer),
        of_heartbeat(engine.heartbeat),
        of_outbox(engine.outbox),
        of_peers(engine.peers),
        of_slots(engine.slots, engine.proposer.ballot != BALLOT_NONE),
    )


cdef tuple of_acceptor(AcceptorCore acceptor):
    return (
        acceptor.promised, acceptor.promised_durable, acceptor.trimmed,
        acceptor.stream_ballot, acceptor.stream_start, acceptor.stream_next,
        acceptor.durable_ballot, acceptor.durable_start, acceptor.durable_upto,
        acceptor.is_quarantined, acceptor.ack_due, acceptor.gap_answered,
        acceptor.transfer_ballot, acceptor.transfer_heir,
        acceptor.chosen_upto, acceptor.mark, acceptor.contradiction, acceptor.waits_for_room,
    )


cdef tuple of_learner(LearnerCore learner):
    cdef int i
    return (
        learner.known_upto, learner.chosen_upto, learner.last_index, learner.config_slot,
        learner.stream_ballot, learner.stream_start, learner.announced,
        learner.counting_ballot, learner.counting_from, learner.counted_upto,
        tuple([learner.votes[i] for i in range(learner.peers.count)]),
        tuple(sorted(learner.sessions.last().items())),
    )


cdef tuple of_proposer(ProposerCore proposer):
    """What a proposer that does not lead still holds is overwritten when it leads again."""
    cdef int i
    cdef uint64_t place
    cdef Waiting *waiting
    cdef list backlog = []
    if proposer.ballot == BALLOT_NONE:
        return (proposer.last_led,)
    for place in range(proposer.backlog_head, proposer.backlog_tail):
        waiting = &proposer.backlog[place & (proposer.backlog_capacity - 1)]
        backlog.append((waiting.kind, waiting.crc))
    return (
        proposer.last_led, proposer.ballot, proposer.next_slot, proposer.own_noop_slot, proposer.barrier_slot,
        proposer.chosen_upto, proposer.running_bytes, proposer.chosen_running_bytes, proposer.backlog_bytes,
        tuple([of_stream(&proposer.streams[i]) for i in range(proposer.peers.count)]),
        tuple(backlog),
        tuple(sorted(proposer.sessions.last().items())),
    )


cdef tuple of_stream(const Stream *stream):
    return (
        stream.is_open, stream.open_unanswered, stream.start, stream.next, stream.acked, stream.acked_bytes,
        stream.sent_bytes, stream.mark_sent, stream.acked_before, stream.silent_rounds,
    )


cdef tuple of_heartbeat(HeartbeatCore heartbeat):
    return (
        heartbeat.votes, heartbeat.is_connected, heartbeat.is_happy, heartbeat.is_candidate, heartbeat.leader,
        heartbeat.best_chosen, heartbeat.best_peer, heartbeat.relay, heartbeat.followed_above,
        heartbeat.promised_above, heartbeat.own_ballot,
    )


cdef tuple of_outbox(Outbox outbox):
    cdef uint64_t place
    cdef Pending *item
    cdef list items = []
    for place in range(outbox.head, outbox.tail):
        item = outbox.at(place)
        items.append((item.last_ticket, item.crc))
    return (outbox.sent - outbox.head, outbox.sent_to, tuple(items))


cdef tuple of_peers(Peers peers):
    cdef int i
    return (
        peers.config_slot, peers.prepare_size, peers.accept_size, peers.own,
        tuple([
            (
                peers.items[i].node_id, peers.items[i].is_bound, peers.items[i].is_verified,
                peers.items[i].is_quarantined, peers.items[i].has_answered, peers.items[i].incarnation,
                peers.items[i].nonce, peers.items[i].seen_incarnation, peers.items[i].seen_nonce,
                peers.items[i].seen_promised,
            )
            for i in range(peers.count)
        ]),
    )


cdef tuple of_slots(SlotTable slots, bint leads):
    cdef uint64_t slot
    cdef Slot *entry
    cdef list held = []
    for slot in range(slots.base, slots.top + 1):
        entry = slots.get(slot)
        held.append((
            entry.ballot, entry.kind, entry.flags, entry.length, entry.value_crc,
            entry.running_bytes if leads else 0,
        ))
    return (slots.base, tuple(held))
