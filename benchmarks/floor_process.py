"""One of the three processes of the floor: it can write and sync, and exchange messages with the two others."""

from __future__ import annotations

import os
import sys
import time
from array import array

import cffi
import zmq

from benchmarks.worker import answer
from paxos.transport.native import backend_files

WRITE_BYTES = 512
FILE_BYTES = 16 << 20
MESSAGE_BYTES = 256
RECEIVE_BYTES = 512


class Disk:
    """Writes at ascending positions of a file whose zeros are on the disk, and begins again at its end."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        for position in range(0, FILE_BYTES, 1 << 20):
            os.pwrite(self._fd, bytes(1 << 20), position)
        os.fsync(self._fd)
        self._position = 0
        self._data = os.urandom(WRITE_BYTES)

    def write(self) -> None:
        """Write once and make it durable."""
        os.pwrite(self._fd, self._data, self._position)
        os.fdatasync(self._fd)
        self._position = (self._position + WRITE_BYTES) % FILE_BYTES


class Sockets:
    """A ROUTER that receives and one DEALER for each peer that sends, as in a node; libzmq through cffi."""

    def __init__(self) -> None:
        self._ffi = cffi.FFI()
        self._ffi.cdef(
            "int zmq_send(void *socket, const void *data, size_t size, int flags);"
            "int zmq_recv(void *socket, void *data, size_t size, int flags);"
        )
        library = self._ffi.dlopen(backend_files()[0])
        self._send, self._receive = library.zmq_send, library.zmq_recv
        self._context = zmq.Context()
        self._context.linger = 0
        self._router = self._context.socket(zmq.ROUTER)
        self.port = int(self._router.bind_to_random_port("tcp://127.0.0.1"))
        self._incoming = self._ffi.cast("void *", self._router.underlying)
        self._dealers: list[zmq.Socket[bytes]] = []
        self._outgoing: list[object] = []
        self._buffer = self._ffi.new("char[]", RECEIVE_BYTES)

    def connect(self, port: int) -> None:
        """Connect to one more peer."""
        dealer = self._context.socket(zmq.DEALER)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        self._dealers.append(dealer)
        self._outgoing.append(self._ffi.cast("void *", dealer.underlying))

    def send(self, peer: int) -> None:
        """Send one message to the ``peer``-th connection."""
        self._send(self._outgoing[peer], self._buffer, MESSAGE_BYTES, 0)

    def receive(self) -> None:
        """Wait for one message: the identity of the connection, then the message."""
        self._receive(self._incoming, self._buffer, RECEIVE_BYTES, 0)
        self._receive(self._incoming, self._buffer, RECEIVE_BYTES, 0)


class Process:
    """What the parent asks for; every duration is in nanoseconds."""

    def __init__(self, path: str) -> None:
        self._disk = Disk(path)
        self._sockets = Sockets()

    def port(self) -> int:
        """Return where this process listens."""
        return self._sockets.port

    def connect(self, port: int) -> None:
        """Connect to a peer."""
        self._sockets.connect(port)

    def sync(self, count: int) -> array[int]:
        """Write and sync ``count`` times."""
        took = array("Q")
        clock = time.perf_counter_ns
        for _ in range(count):
            began = clock()
            self._disk.write()
            took.append(clock() - began)
        return took

    def echo(self, count: int) -> None:
        """Send back ``count`` messages to the first peer."""
        for _ in range(count):
            self._sockets.receive()
            self._sockets.send(0)

    def ping(self, count: int) -> array[int]:
        """Exchange ``count`` messages with the first peer."""
        took = array("Q")
        clock = time.perf_counter_ns
        for _ in range(count):
            began = clock()
            self._sockets.send(0)
            self._sockets.receive()
            took.append(clock() - began)
        return took

    def vote(self, count: int) -> None:
        """Like :meth:`echo`, but sync before each answer."""
        for _ in range(count):
            self._sockets.receive()
            self._disk.write()
            self._sockets.send(0)

    def commit(self, count: int) -> array[int]:
        """Send to both peers, sync, wait for one answer: a commit without any protocol."""
        took = array("Q")
        clock = time.perf_counter_ns
        for _ in range(count):
            began = clock()
            self._sockets.send(0)
            self._sockets.send(1)
            self._disk.write()
            self._sockets.receive()
            took.append(clock() - began)
            self._sockets.receive()  # the other one's answer, before the next round
        return took


if __name__ == "__main__":
    process = Process(sys.argv[2])
    names = ("port", "connect", "sync", "echo", "ping", "vote", "commit")
    answer(int(sys.argv[1]), {name: getattr(process, name) for name in names})
