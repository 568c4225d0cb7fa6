"""Heartbeat rounds and election by quorum-connectivity.

A node asks everyone every ``period_us``; a round closes when all have answered, after one period when all
who answered of late have, and after three in any case; only where the answers of late took longer, it waits longer
for a quorum and for the leader that is followed. At its close the node knows whom it *heard*, and from that alone:

* connected: a quorum of those heard votes;
* happy: it leads and is connected, or it heard the leader that it follows say that it is connected;
* candidate: connected, not happy, and nobody whom it heard is happy.
"""

from libc.string cimport memset

from paxos._core.ballot cimport BALLOT_NONE
from paxos._core.codec cimport PONG_CONNECTED, PONG_HAPPY, PONG_LEADS, PONG_VOTES

cdef enum:
    ROUND_PERIODS_MAX = 3
    PATIENCE_TIMEOUTS_MAX = 8    # however slow disks and links are, a dead leader is missed after so many timeouts
    SLOW_DECAY_ROUNDS = 64


cdef class HeartbeatCore:
    """Rounds, answers and conclusions of one node.

    Args:
        period_us: time between the openings of two rounds.
        election_timeout_us: how long a leader may stay unconnected.
        priority: told to the peers; the higher one waits less before it tries to lead.
    """

    def __init__(
        self,
        Peers peers not None,
        Ready ready=None,
        *,
        period_us: int = 30_000,
        election_timeout_us: int = 150_000,
        priority: int = 0,
    ) -> None:
        self.peers = peers
        self.ready = Ready() if ready is None else ready
        self.period_us = period_us
        self.election_timeout_us = election_timeout_us
        self.priority = priority
        self.own_votes = True

    cdef bint is_due(self, uint64_t now_us) noexcept nogil:
        return now_us >= self.next_due_us()

    cdef uint64_t next_due_us(self) noexcept nogil:
        if not self.round_is_open or self._expected_answered():
            return self.opened_us + self.period_us
        if self._enough_answered():
            return self.opened_us + ROUND_PERIODS_MAX * self.period_us
        return self.opened_us + self.patience_us()

    cdef uint64_t patience_us(self) noexcept nogil:
        cdef uint64_t least = ROUND_PERIODS_MAX * self.period_us
        cdef uint64_t wanted = min(self.slow_us + self.slow_us // 2, PATIENCE_TIMEOUTS_MAX * self.election_timeout_us)
        return max(least, wanted)

    cdef uint64_t grace_us(self) noexcept nogil:
        # A value needs the leader's sync and a follower's, and that one may be busy with an earlier one.
        if self.patience_us() == ROUND_PERIODS_MAX * self.period_us:
            return self.election_timeout_us
        return max(self.election_timeout_us, 2 * self.patience_us())

    cdef void _measure(self, uint64_t round, uint64_t now_us) noexcept nogil:
        """An answer to `round` has come, perhaps long after that was closed."""
        cdef uint64_t took_us
        if round > self.round or self.round - round >= ROUNDS_REMEMBERED:
            return
        took_us = now_us - self.opened_at[round % ROUNDS_REMEMBERED]
        # A node that was suspended says nothing about disks and links; what is remembered is bounded.
        took_us = min(took_us, PATIENCE_TIMEOUTS_MAX * self.election_timeout_us)
        if took_us > self.slow_us:
            self.slow_us = took_us

    cdef bint _enough_answered(self) noexcept nogil:
        """Tell whether a quorum has answered that votes, and the leader that is followed."""
        cdef int i, voters = self.own_votes
        cdef uint64_t leader_node = self.leader & 0xFFFF
        cdef bint leader_heard = self.leader == BALLOT_NONE or leader_node == self.peers.node_id
        for i in range(self.peers.count):
            if i == self.peers.own or not self.answers[i].counted:
                continue
            voters += (self.answers[i].flags & PONG_VOTES) != 0
            leader_heard = leader_heard or self.peers.items[i].node_id == leader_node
        return leader_heard and voters >= max(self.peers.prepare_size, self.peers.accept_size)

    cdef bint _expected_answered(self) noexcept nogil:
        cdef int i
        for i in range(self.peers.count):
            if i != self.peers.own and self.expected[i] and not self.answers[i].counted:
                return False
        return True

    cdef void open_round(self, uint64_t now_us) noexcept nogil:
        self.round += 1
        self.round_is_open = True
        self.opened_us = now_us
        self.opened_at[self.round % ROUNDS_REMEMBERED] = now_us
        self.slow_us -= self.slow_us // SLOW_DECAY_ROUNDS
        memset(self.answers, 0, sizeof(self.answers))

    cdef bint on_pong(self, const FrameHeader *header, const PongPayload *pong, uint64_t now_us) noexcept nogil:
        cdef int place = self.peers.place(header.sender)
        cdef Answer *answer
        cdef int i, counted = 0
        # Only answers to this incarnation and this round count [h9].
        if place < 0 or place == self.peers.own or pong.asker != self.peers.incarnation:
            return False
        self.expected[place] = True
        self._measure(pong.round, now_us)
        if pong.round != self.round or not self.round_is_open:
            return False
        answer = &self.answers[place]
        answer.counted = True
        answer.flags = pong.flags
        answer.promised = pong.promised
        answer.leader = pong.leader
        answer.chosen_upto = pong.chosen_upto
        answer.priority = pong.priority
        for i in range(self.peers.count):
            counted += self.answers[i].counted
        return counted >= self.peers.count - (1 if self.peers.own >= 0 else 0)

    cdef void close_round(self, uint64_t now_us) noexcept nogil:
        cdef int i, voters = 0, needed
        cdef bint somebody_happy = False
        cdef bint leader_connected = False
        cdef int within_ballot = 0
        cdef Answer *answer
        self.round_is_open = False
        self.leader_is_new = False
        self.votes = self.own_votes
        self.heard = 0
        self.best_chosen = 0
        self.best_peer = 0
        self.relay = 0
        self.followed_above = BALLOT_NONE
        self.promised_above = BALLOT_NONE
        self.leader = self.own_ballot if self.own_ballot >= self.own_promised else BALLOT_NONE
        for i in range(self.peers.count):
            if i == self.peers.own:
                self.heard += 1
                voters += self.votes
                within_ballot += self.own_promised <= self.own_ballot
                continue
            answer = &self.answers[i]
            if not answer.counted:
                self.expected[i] = self.expected[i] and now_us < self.opened_us + ROUND_PERIODS_MAX * self.period_us
                continue
            self.heard += 1
            voters += (answer.flags & PONG_VOTES) != 0
            within_ballot += (answer.flags & PONG_VOTES) != 0 and answer.promised <= self.own_ballot
            if answer.promised > self.own_ballot and answer.promised > self.promised_above:
                self.promised_above = answer.promised
            if answer.flags & (PONG_LEADS | PONG_HAPPY) and answer.leader > self.followed_above:
                self.followed_above = answer.leader
            if answer.flags & PONG_HAPPY:
                somebody_happy = True
                self.relay = self.peers.items[i].node_id
            if answer.chosen_upto > self.best_chosen:
                self.best_chosen = answer.chosen_upto
                self.best_peer = self.peers.items[i].node_id
            if answer.flags & PONG_LEADS and answer.leader >= self.own_promised and answer.leader > self.leader:
                self.leader = answer.leader
                leader_connected = (answer.flags & PONG_CONNECTED) != 0
        needed = self.peers.prepare_size
        if self.peers.accept_size > needed:
            needed = self.peers.accept_size
        self.is_connected = voters >= needed
        if self.own_ballot != BALLOT_NONE and within_ballot < self.peers.accept_size:
            self.is_connected = False   # its values can no longer be accepted by a quorum [h22]
        if self.is_connected:
            self.last_connected_us = now_us
        if self.leader != BALLOT_NONE and self.leader == self.own_ballot:
            self.is_happy = self.is_connected
        else:
            self.is_happy = self.leader != BALLOT_NONE and leader_connected
        self.is_candidate = (
            self.peers.own >= 0 and self.votes and self.is_connected and not self.is_happy and not somebody_happy
        )

    cdef void follow(self, uint64_t ballot) noexcept nogil:
        if ballot > self.leader:
            self.leader = ballot
            self.leader_is_new = self.round != 0      # the close of a round ends it; by hand there may be none

    cdef uint32_t flags(self) noexcept nogil:
        cdef uint32_t flags = 0
        if self.own_ballot != BALLOT_NONE:
            flags |= PONG_LEADS
        if self.is_connected:
            flags |= PONG_CONNECTED
        if self.is_happy:
            flags |= PONG_HAPPY
        if self.own_votes:
            flags |= PONG_VOTES
        return flags

    def answered(self) -> dict[int, dict[str, int]]:
        """Return what was heard in the present round, by node id."""
        return {
            self.peers.items[i].node_id: {
                "flags": self.answers[i].flags,
                "promised": self.answers[i].promised,
                "leader": self.answers[i].leader,
                "chosen_upto": self.answers[i].chosen_upto,
            }
            for i in range(self.peers.count)
            if self.answers[i].counted
        }
