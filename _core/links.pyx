"""ZeroMQ sockets for code without the GIL: :class:`Links`."""

cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOMEM
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from paxos._core.buffer cimport buffer_copy, buffer_from_bytes, buffer_new, buffer_release, buffer_retain, buffer_bytes
from paxos._core.codec cimport (
    ACCEPT, ACCEPT_REF, CHOSEN, DECIDE, FETCHED, FORWARD, HEADER_BYTES, OPEN, SNAPSHOT_CHUNK, SNAPSHOT_OFFER,
    header_valid,
)

from paxos.errors import ConfigError

cdef extern from *:
    """
    #include <poll.h>
    #include <time.h>
    static int paxos_poll_two(int first, int second, int64_t timeout_us) {
        struct pollfd fds[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
        struct timespec timeout;
        if (timeout_us < 0)
            timeout_us = 0;
        timeout.tv_sec = timeout_us / 1000000;
        timeout.tv_nsec = (timeout_us % 1000000) * 1000;
        if (ppoll(fds, 2, &timeout, NULL) <= 0)
            return 0;
        return (fds[1].revents & POLLIN) != 0;
    }
    static int paxos_retain32(int32_t *count) { return __atomic_fetch_add(count, 1, __ATOMIC_RELAXED); }
    static int paxos_release32(int32_t *count) { return __atomic_fetch_sub(count, 1, __ATOMIC_ACQ_REL); }
    static void paxos_count_add(uint64_t *count, uint64_t n) { __atomic_fetch_add(count, n, __ATOMIC_RELAXED); }
    static void paxos_count_sub(uint64_t *count, uint64_t n) { __atomic_fetch_sub(count, n, __ATOMIC_RELAXED); }
    static uint64_t paxos_count_get(uint64_t *count) { return __atomic_load_n(count, __ATOMIC_RELAXED); }
    """
    int poll_two "paxos_poll_two"(int first, int second, int64_t timeout_us) noexcept nogil
    int retain32 "paxos_retain32"(int32_t *count) noexcept nogil
    int release32 "paxos_release32"(int32_t *count) noexcept nogil
    void count_add "paxos_count_add"(uint64_t *count, uint64_t n) noexcept nogil
    void count_sub "paxos_count_sub"(uint64_t *count, uint64_t n) noexcept nogil
    uint64_t count_get "paxos_count_get"(uint64_t *count) noexcept nogil

cdef enum:
    ZMQ_DONTWAIT = 1
    ZMQ_SNDMORE = 2
    ZMQ_EVENTS = 15
    DRAIN_PARTS = 64            # parts of a malformed message that are thrown away in one call

ctypedef void (*FreeFunction)(void *data, void *hint) noexcept nogil

# A zmq_msg_t: 64 bytes that are only ever moved by zmq_msg_move.
cdef struct Message:
    unsigned long long words[8]

cdef struct Functions:
    int (*msg_init)(void *) noexcept nogil
    int (*msg_init_data)(void *, void *, size_t, FreeFunction, void *) noexcept nogil
    int (*msg_recv)(void *, void *, int) noexcept nogil
    int (*msg_send)(void *, void *, int) noexcept nogil
    int (*msg_close)(void *) noexcept nogil
    void *(*msg_data)(void *) noexcept nogil
    size_t (*msg_size)(const void *) noexcept nogil
    int (*msg_more)(const void *) noexcept nogil
    int (*msg_move)(void *, void *) noexcept nogil
    int (*send)(void *, const void *, size_t, int) noexcept nogil
    int (*get_errno)() noexcept nogil
    int (*getsockopt)(void *, int, void *, size_t *) noexcept nogil
    int (*connect)(void *, const char *) noexcept nogil
    int (*disconnect)(void *, const char *) noexcept nogil

# Set once by install(), before the first Links exists.
cdef Functions zmq
cdef bint installed = False

FUNCTION_NAMES = (
    "zmq_msg_init", "zmq_msg_init_data", "zmq_msg_recv", "zmq_msg_send", "zmq_msg_close", "zmq_msg_data",
    "zmq_msg_size", "zmq_msg_more", "zmq_msg_move", "zmq_send", "zmq_errno", "zmq_getsockopt",
    "zmq_connect", "zmq_disconnect",
)


def install(addresses: dict[str, int]) -> None:
    """Tell this module where libzmq's functions are; see ``paxos.transport.native``."""
    global installed
    cdef uintptr_t address
    cdef void **table = <void **>&zmq
    cdef Py_ssize_t i
    found = [addresses[name] for name in FUNCTION_NAMES]
    if not all(found):
        raise ImportError("an address of a libzmq function is null")
    for i in range(len(FUNCTION_NAMES)):
        address = found[i]
        table[i] = <void *>address
    installed = True


# What one message sent by reference holds until libzmq gives it back, on its own thread.
cdef struct Loan:
    Buffer *buffer
    InFlight *in_flight


cdef void in_flight_release(InFlight *in_flight) noexcept nogil:
    if in_flight != NULL and release32(&in_flight.references) == 1:
        free(in_flight)


cdef void give_back(void *data, void *hint) noexcept nogil:
    cdef Loan *loan = <Loan *>hint
    count_sub(&loan.in_flight.bytes, loan.buffer.size)
    in_flight_release(loan.in_flight)
    buffer_release(loan.buffer)
    free(loan)


cdef void close_owned_message(Buffer *buffer) noexcept nogil:
    zmq.msg_close(buffer.owner)


@cython.final
cdef class Links:
    """The connections of one node: a ROUTER that receives, a DEALER for each peer that sends.

    Args:
        router: the bound ``zmq.Socket``.
        payload_bytes_max: larger payloads are dropped on arrival.
        in_flight_bytes_max: bytes that libzmq may hold for one peer; beyond it frames are dropped.
    """

    def __cinit__(self, router: object, *, size_t payload_bytes_max, size_t in_flight_bytes_max):
        cdef uintptr_t address
        if not installed:
            raise ImportError("libzmq's functions are not known yet: import paxos.transport first")
        address = router.underlying
        self.router = <void *>address
        self.router_fd = router.fileno()
        self.payload_bytes_max = payload_bytes_max
        self.in_flight_bytes_max = in_flight_bytes_max
        self._keep = [router]

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.peer_count):
            in_flight_release(self.peers[i].in_flight)
        free(self.peers)

    def add_peer(
        self, node_id: int, dealer: object, *, urgent: bool = False, counted: bool = True, inproc: str = ""
    ) -> None:
        """Send frames for ``node_id`` through ``dealer``, those on the urgent lane or the others. Only while
        the reactor does not run.

        ``inproc`` is the address of a peer in this process: libzmq does not connect there again by itself.
        """
        cdef bytes name = inproc.encode()
        cdef uintptr_t address = dealer.underlying
        cdef Peer peer
        cdef Peer *moved
        cdef int lane = LANE_URGENT if urgent else LANE_BULK
        if not 1 <= node_id <= 0xFFFF or self._find(node_id, lane) >= 0:
            raise ConfigError(f"node id {node_id} is out of range or has a connection already")
        memset(&peer, 0, sizeof(peer))
        peer.node_id = node_id
        peer.lane = <uint8_t>lane
        peer.counted = counted
        if len(name) < ADDRESS_BYTES_MAX:
            memcpy(peer.address, <const char *>name, len(name))
        peer.socket = <void *>address
        peer.in_flight = <InFlight *>malloc(sizeof(InFlight))
        if peer.in_flight == NULL:
            raise MemoryError("no memory for one more peer")
        peer.in_flight.references = 1
        peer.in_flight.bytes = 0
        moved = <Peer *>realloc(self.peers, (self.peer_count + 1) * sizeof(Peer))
        if moved == NULL:
            free(peer.in_flight)
            raise MemoryError("no memory for one more peer")
        self.peers = moved
        self.peers[self.peer_count] = peer
        self.peer_count += 1
        self._keep.append(dealer)

    def _find(self, node_id: int, lane: int) -> int:
        cdef size_t i
        for i in range(self.peer_count):
            if self.peers[i].node_id == node_id and self.peers[i].lane == lane:
                return <int>i
        return -1

    cdef Peer *_connection(self, uint16_t node_id, uint8_t kind) noexcept nogil:
        cdef Lane lane = LANE_URGENT
        cdef Peer *found = NULL
        cdef size_t i
        if (
            kind == ACCEPT or kind == DECIDE or kind == OPEN or kind == ACCEPT_REF or kind == FORWARD
            or kind == CHOSEN or kind == FETCHED or kind == SNAPSHOT_OFFER or kind == SNAPSHOT_CHUNK
        ):
            lane = LANE_BULK
        for i in range(self.peer_count):
            if self.peers[i].node_id == node_id:
                found = &self.peers[i]
                if found.lane == lane:
                    break
        return found

    cdef Received _drop(self, uint64_t *counter, bint more) noexcept nogil:
        counter[0] += 1
        self.draining = more
        return RECEIVED_GARBAGE

    cdef Received receive(self, FrameHeader *header, Buffer **payload) noexcept nogil:
        cdef Message message
        cdef int error
        cdef int part = 0
        cdef bint more
        cdef bint valid
        cdef Received outcome
        payload[0] = NULL
        zmq.msg_init(&message)
        while part < DRAIN_PARTS:
            if zmq.msg_recv(&message, self.router, ZMQ_DONTWAIT) < 0:
                error = zmq.get_errno()
                zmq.msg_close(&message)
                # A message arrives as a whole, so a rest that cannot be read is no rest.
                self.draining = False
                if error == EAGAIN:
                    return RECEIVED_NOTHING if part == 0 else RECEIVED_GARBAGE
                return RECEIVED_GARBAGE if error == EINTR else RECEIVED_DEAD
            more = zmq.msg_more(&message)
            part += 1
            if self.draining:
                self.draining = more
                if not more:
                    break
            elif part == 1:
                if not more:
                    zmq.msg_close(&message)
                    return self._drop(&self.malformed_header, False)
            else:
                valid = header_valid(<const uint8_t *>zmq.msg_data(&message), zmq.msg_size(&message))
                if valid:
                    memcpy(header, zmq.msg_data(&message), HEADER_BYTES)
                zmq.msg_close(&message)
                if not valid:
                    return self._drop(&self.malformed_header, more)
                if header.payload_bytes == 0:
                    if more:
                        return self._drop(&self.malformed_payload, more)
                    self.received_frames += 1
                    self.received_bytes += HEADER_BYTES
                    return RECEIVED_FRAME
                if not more:
                    return self._drop(&self.malformed_payload, more)
                zmq.msg_init(&message)
                outcome = self._receive_payload(&message, header.payload_bytes, payload)
                zmq.msg_close(&message)
                return outcome
        zmq.msg_close(&message)
        return RECEIVED_GARBAGE

    cdef Received _receive_payload(self, void *message, size_t announced, Buffer **payload) noexcept nogil:
        """The part after a header; its bytes move into a Buffer."""
        cdef Buffer *buffer
        cdef size_t size
        cdef bint more
        if zmq.msg_recv(message, self.router, ZMQ_DONTWAIT) < 0:
            return self._drop(&self.malformed_payload, False)
        more = zmq.msg_more(message)
        size = zmq.msg_size(message)
        if more or size != announced or size > self.payload_bytes_max:
            return self._drop(&self.malformed_payload, more)
        if size < RECEIVE_COPY_BYTES:
            buffer = buffer_copy(zmq.msg_data(message), size)
        else:
            buffer = buffer_new(0)
        if buffer == NULL:
            return self._drop(&self.out_of_memory, False)
        if size >= RECEIVE_COPY_BYTES:
            zmq.msg_init(buffer.owner)
            zmq.msg_move(buffer.owner, message)
            buffer.data = <uint8_t *>zmq.msg_data(buffer.owner)
            buffer.size = size
            buffer.on_free = close_owned_message
        payload[0] = buffer
        self.received_frames += 1
        self.received_bytes += HEADER_BYTES + size
        return RECEIVED_FRAME

    cdef bint send(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef Peer *peer = self._connection(header.receiver, header.kind)
        cdef bint sent
        if peer == NULL:
            self.unknown_receiver += 1
            return False
        if peer.unfinished:
            # The receiver drops the message that this ends: it lacks its payload.
            if zmq.send(peer.socket, NULL, 0, ZMQ_DONTWAIT) < 0:
                self._count_failure(peer)
                return False
            peer.unfinished = False
        if payload == NULL or payload.size == 0:
            sent = self._send_part(peer, header, HEADER_BYTES, 0)
        elif payload.size <= ZERO_COPY_BYTES:
            sent = self._send_part(peer, header, HEADER_BYTES, ZMQ_SNDMORE)
            if sent and zmq.send(peer.socket, payload.data, payload.size, ZMQ_DONTWAIT) < 0:
                peer.unfinished = True
                self._count_failure(peer)
                sent = False
        else:
            sent = self._send_reference(peer, header, payload)
        if sent:
            peer.failures = 0
            peer.sent_frames += 1
            peer.sent_bytes += HEADER_BYTES + (payload.size if payload != NULL else 0)
        return sent

    cdef void _count_failure(self, Peer *peer) noexcept nogil:
        """No room, or nobody there. An inproc peer that restarted must be connected again by us."""
        peer.dropped_full += 1
        peer.failures += 1
        if peer.address[0] and peer.failures % RECONNECT_FAILURES == 0:
            # Ends the connection if it stands after all, so that there is never more than one.
            zmq.disconnect(peer.socket, peer.address)
            if zmq.connect(peer.socket, peer.address) == 0:
                peer.reconnects += 1

    cdef bint _retry_after_commands(self, Peer *peer) noexcept nogil:
        """A send failed: let the socket look at its mailbox (it does so on its own only once in a
        millisecond), where a new connection or new room may wait. True if trying again may help."""
        cdef int events = 0
        cdef size_t size = sizeof(events)
        if zmq.get_errno() != EAGAIN:
            peer.errors += 1
            return False
        if zmq.getsockopt(peer.socket, ZMQ_EVENTS, &events, &size) != 0:
            peer.errors += 1
            return False
        return events & 2 != 0

    cdef bint _send_part(self, Peer *peer, const void *data, size_t size, int flags) noexcept nogil:
        """The first part of a message; counts it as dropped if it cannot leave."""
        flags |= ZMQ_DONTWAIT
        if zmq.send(peer.socket, data, size, flags) >= 0:
            return True
        if self._retry_after_commands(peer) and zmq.send(peer.socket, data, size, flags) >= 0:
            return True
        self._count_failure(peer)
        return False

    cdef bint _send_reference(self, Peer *peer, const FrameHeader *header, Buffer *payload) noexcept nogil:
        """Header by copy, payload by reference."""
        cdef Message message
        cdef Loan *loan
        if peer.counted and count_get(&peer.in_flight.bytes) + payload.size > self.in_flight_bytes_max:
            if count_get(&peer.in_flight.bytes) != 0:
                peer.dropped_bytes_max += 1
                return False
        loan = <Loan *>malloc(sizeof(Loan))
        if loan == NULL:
            self.out_of_memory += 1
            return False
        loan.buffer = payload
        loan.in_flight = peer.in_flight
        if zmq.msg_init_data(&message, payload.data, payload.size, give_back, loan) != 0:
            free(loan)
            self.out_of_memory += 1
            return False
        # From here on the message owns the loan: closing it calls give_back.
        buffer_retain(payload)
        retain32(&peer.in_flight.references)
        count_add(&peer.in_flight.bytes, payload.size)
        if not self._send_part(peer, header, HEADER_BYTES, ZMQ_SNDMORE):
            zmq.msg_close(&message)
            return False
        if zmq.msg_send(&message, peer.socket, ZMQ_DONTWAIT) < 0:
            zmq.msg_close(&message)
            peer.unfinished = True
            self._count_failure(peer)
            return False
        return True

    cdef bint wait(self, int event_fd, int64_t timeout_us) noexcept nogil:
        return poll_two(self.router_fd, event_fd, timeout_us)

    def counters(self) -> dict[str, int]:
        """What came, what left, and what was dropped for which reason, since the start."""
        cdef size_t i
        counts = {
            "received_frames": self.received_frames,
            "received_bytes": self.received_bytes,
            "dropped_malformed_header": self.malformed_header,
            "dropped_malformed_payload": self.malformed_payload,
            "dropped_unknown_receiver": self.unknown_receiver,
            "dropped_out_of_memory": self.out_of_memory,
            "sent_frames": 0, "sent_bytes": 0, "dropped_full": 0, "dropped_bytes_max": 0, "send_errors": 0,
        }
        for i in range(self.peer_count):
            counts["sent_frames"] += self.peers[i].sent_frames
            counts["sent_bytes"] += self.peers[i].sent_bytes
            counts["dropped_full"] += self.peers[i].dropped_full
            counts["dropped_bytes_max"] += self.peers[i].dropped_bytes_max
            counts["send_errors"] += self.peers[i].errors
        return counts

    def peer_counters(self, node_id: int) -> dict[str, int]:
        """The same for what was sent to one peer, on both lanes.

        Raises:
            KeyError: there is no connection to ``node_id``.
        """
        cdef size_t i
        cdef Peer *peer
        counts: dict[str, int] = {}
        for i in range(self.peer_count):
            peer = &self.peers[i]
            if peer.node_id != node_id:
                continue
            for name, value in (
                ("sent_frames", peer.sent_frames), ("sent_bytes", peer.sent_bytes),
                ("dropped_full", peer.dropped_full), ("dropped_bytes_max", peer.dropped_bytes_max),
                ("send_errors", peer.errors), ("in_flight_bytes", count_get(&peer.in_flight.bytes)),
            ):
                counts[name] = counts.get(name, 0) + value
        if not counts:
            raise KeyError(node_id)
        return counts

    def try_send(self, const uint8_t[::1] frame not None) -> bool:
        """Send one frame, header and payload together, as the reactor does. For tests, without a reactor.

        Raises:
            ValueError: not a frame.
        """
        cdef FrameHeader header
        cdef Buffer *payload = NULL
        cdef bint sent
        if frame.shape[0] < HEADER_BYTES or not header_valid(&frame[0], HEADER_BYTES):
            raise ValueError(f"{frame.shape[0]} bytes that do not start with a valid frame header")
        memcpy(&header, &frame[0], HEADER_BYTES)
        if <size_t>frame.shape[0] - HEADER_BYTES != header.payload_bytes:
            raise ValueError("the payload has not the announced size")
        if header.payload_bytes:
            payload = buffer_from_bytes(frame[HEADER_BYTES:])
        with nogil:
            sent = self.send(&header, payload)
            buffer_release(payload)
        return sent

    def try_receive(self) -> bytes | None:
        """Return one frame, header and payload together, or None. For tests, without a reactor.

        Raises:
            OSError: the socket is gone.
        """
        cdef FrameHeader header
        cdef Buffer *payload = NULL
        cdef Received outcome = RECEIVED_GARBAGE
        with nogil:
            while outcome == RECEIVED_GARBAGE:
                outcome = self.receive(&header, &payload)
        if outcome == RECEIVED_DEAD:
            raise OSError("the receiving socket is closed")
        if outcome == RECEIVED_NOTHING:
            return None
        frame = (<const uint8_t *>&header)[:HEADER_BYTES]
        if payload != NULL:
            frame += buffer_bytes(payload)
            buffer_release(payload)
        return frame
