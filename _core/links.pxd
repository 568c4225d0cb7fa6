# Frames to and from the peers through ZeroMQ, without the GIL. Python sets up the sockets (see
# paxos.transport); the same libzmq is called here through the addresses of its functions.
#
# A frame is one message part of HEADER_BYTES and, iff it announces a payload, one part with it. One ROUTER
# receives (the peer's routing id comes as a part before the header and is ignored: it proves nothing); the
# DEALERs send and never receive: two for each peer, because a heartbeat that queues behind the values of a
# full window comes too late, and the cluster would change its leader exactly when it is busy. So frames on
# different lanes may overtake each other; the protocol bears that. Only one thread may use a Links at a time:
# the reactor.
#
# Nothing here blocks, and nothing from outside is fatal: what does not follow the format is dropped as a
# whole message and counted. The protocol retransmits, so a frame that cannot leave now is dropped too.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader

cdef enum:
    ZERO_COPY_BYTES = 2048      # larger payloads are sent by reference
    RECEIVE_COPY_BYTES = 8192   # smaller ones are copied out, so that they do not pin libzmq's read buffer

    ADDRESS_BYTES_MAX = 256
    RECONNECT_FAILURES = 16     # in a row: about half a second of heartbeats

cdef enum Received:
    RECEIVED_NOTHING = 0        # no message waits; the router's descriptor becomes readable when one comes
    RECEIVED_FRAME = 1
    RECEIVED_GARBAGE = 2        # something was dropped and counted; ask again
    RECEIVED_DEAD = 3           # the socket or its context is gone

# Bytes that libzmq still holds by reference for one peer. Counted by reference, too: messages may outlive
# the Links, and are given back on libzmq's thread.
cdef struct InFlight:
    int32_t references
    uint64_t bytes

cdef enum Lane:
    LANE_BULK = 0               # values and what must stay in order with them
    LANE_URGENT = 1             # heartbeats, votes, elections

# One connection to one peer.
cdef struct Peer:
    uint16_t node_id
    uint8_t lane
    bint counted                # in-flight bytes are bounded (not for inproc: the receiver keeps them)
    bint unfinished             # a header left, its payload did not: end that message first
    void *socket
    InFlight *in_flight
    uint64_t sent_frames
    uint64_t sent_bytes
    uint64_t dropped_full       # libzmq had no room or no connection
    uint64_t dropped_bytes_max  # in_flight_bytes_max was reached
    uint64_t errors
    # inproc only, where libzmq does not connect again by itself to a name that was given up and bound anew.
    char address[ADDRESS_BYTES_MAX]     # empty: libzmq looks after the connection
    uint32_t failures                   # sends that failed in a row
    uint64_t reconnects

cdef class Links:
    cdef void *router
    cdef int router_fd
    cdef Peer *peers
    cdef size_t peer_count
    cdef readonly size_t payload_bytes_max
    cdef readonly size_t in_flight_bytes_max
    cdef bint draining          # the rest of a malformed message is still to be thrown away
    cdef list _keep             # the Python sockets, so that they live as long as this object

    cdef uint64_t received_frames
    cdef uint64_t received_bytes
    cdef uint64_t malformed_header      # missing, wrong size, magic, version or checksum
    cdef uint64_t malformed_payload     # missing, wrong size, over the limit, or parts after it
    cdef uint64_t unknown_receiver
    cdef uint64_t out_of_memory

    # One message from the router. On RECEIVED_FRAME the caller owns one reference to `payload` (or NULL).
    cdef Received receive(self, FrameHeader *header, Buffer **payload) noexcept nogil
    # Send a sealed header and its payload (borrowed) to `header.receiver`; False if it was dropped.
    cdef bint send(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    # Sleep until a message may have come, `event_fd` is readable, or the time is over. Only after
    # RECEIVED_NOTHING. True if `event_fd` is readable.
    cdef bint wait(self, int event_fd, int64_t timeout_us) noexcept nogil

    cdef Received _receive_payload(self, void *message, size_t announced, Buffer **payload) noexcept nogil
    cdef Received _drop(self, uint64_t *counter, bint more) noexcept nogil
    # The connection for a frame of `kind`; the other lane's where there is only one; NULL: no such peer.
    cdef Peer *_connection(self, uint16_t node_id, uint8_t kind) noexcept nogil
    cdef void _count_failure(self, Peer *peer) noexcept nogil
    cdef bint _retry_after_commands(self, Peer *peer) noexcept nogil
    cdef bint _send_part(self, Peer *peer, const void *data, size_t size, int flags) noexcept nogil
    cdef bint _send_reference(self, Peer *peer, const FrameHeader *header, Buffer *payload) noexcept nogil
