"""How frames travel between nodes: ZeroMQ over tcp, ipc and inproc.

pyzmq sets the sockets up (:mod:`paxos.transport.zmq_transport`); the frames themselves are sent and
received by the reactor without the GIL, through the same libzmq (:mod:`paxos.transport.native`).
"""

from __future__ import annotations

from paxos.transport.zmq_transport import Address, ZmqTransport, parse_address

__all__ = ["Address", "ZmqTransport", "parse_address"]
