# What decides what an engine does next, one part of it at a time, as tuples of integers; see witness.pyx. These
# take the GIL: an exploration asks, no node in production ever does.

from paxos._core.acceptor cimport AcceptorCore
from paxos._core.heartbeat cimport HeartbeatCore
from paxos._core.learner cimport LearnerCore
from paxos._core.outbox cimport Outbox
from paxos._core.peers cimport Peers
from paxos._core.proposer cimport ProposerCore, Stream
from paxos._core.slots cimport SlotTable

cdef tuple of_acceptor(AcceptorCore acceptor)
cdef tuple of_learner(LearnerCore learner)
cdef tuple of_proposer(ProposerCore proposer)    # what it still holds when it does not lead decides nothing
cdef tuple of_stream(const Stream *stream)
cdef tuple of_heartbeat(HeartbeatCore heartbeat)
cdef tuple of_outbox(Outbox outbox)
cdef tuple of_peers(Peers peers)
cdef tuple of_slots(SlotTable slots, bint leads)
