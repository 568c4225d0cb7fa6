"""Everything about the sockets of one node that is set up once: :class:`ZmqTransport`.

Options, and what each is for:

* ``IMMEDIATE``: a frame is queued only for a connection that stands. Without it frames for a dead peer pile
  up and reach it, stale, when it comes back.
* ``LINGER=0``: closing never waits for a dead peer.
* ``ROUTER_MANDATORY``: should the router ever send, a missing peer is an error and not silence.
* ``MAXMSGSIZE``, ``HANDSHAKE_IVL``: what a stranger may make us allocate, and for how long it may keep a
  connection half open.
* high-water marks: ZeroMQ counts messages, inexactly; the bytes are bounded by ``Links``.
* ``TCP_MAXRT``, keepalive, reconnect intervals: a connection that died in silence is given up after seconds
  and tried again within a fifth of one.

Routing ids are left to ZeroMQ, which makes one per connection: nobody can take another's, and they prove
nothing.
"""

from __future__ import annotations

import errno
import os
import re
import socket as sockets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from paxos._core.links import Links
from paxos.errors import ConfigError, StorageError
from paxos.transport import native  # noqa: F401  (gives the core libzmq's functions)

IPC_PATH_BYTES_MAX = 107
CLOSE_TIMEOUT_S = 2.0
FRAME_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address; ``str()`` gives the text back."""

    scheme: str
    host: str
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port is not None else "")


def parse_address(text: object, *, bind: bool = False) -> Address:
    """Parse ``tcp://host:port``, ``ipc://path`` or ``inproc://name``.

    Args:
        bind: also allow ``*`` as host and 0 as port (the system chooses one), which nobody can connect to.

    Raises:
        ConfigError: it is none of these; the message says what was expected.

    >>> str(parse_address("tcp://10.0.0.1:7001"))
    'tcp://10.0.0.1:7001'
    """
    if not isinstance(text, str):
        raise ConfigError(f"an address is a str such as 'tcp://10.0.0.1:7001', not {text!r}")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("tcp", "ipc", "inproc"):
        raise ConfigError(f"address {text!r}: expected tcp://host:port, ipc://path or inproc://name")
    if not rest or any(c.isspace() or not c.isprintable() for c in rest):
        raise ConfigError(f"address {text!r}: nothing usable after {scheme}://")
    if scheme == "inproc":
        return Address(scheme, rest)
    if scheme == "ipc":
        if len(os.fsencode(rest)) > IPC_PATH_BYTES_MAX:
            raise ConfigError(
                f"address {text!r}: the path of a socket has at most {IPC_PATH_BYTES_MAX} bytes"
            )
        return Address(scheme, rest)
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|\*|[A-Za-z0-9_.-]+):([0-9]{1,5})", rest)
    if match is None:
        raise ConfigError(
            f"address {text!r}: expected tcp://host:port, e.g. tcp://10.0.0.1:7001 or tcp://[::1]:7001"
        )
    host, port = match[1], int(match[2])
    if port > 65535:
        raise ConfigError(f"address {text!r}: a port is at most 65535")
    if not bind and (host == "*" or port == 0):
        raise ConfigError(f"address {text!r}: peers need a host and a port that they can connect to")
    return Address(scheme, host, port)


class _InprocContext:
    """The one context that all nodes of this process with inproc addresses share; closed by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: zmq.Context[Any] | None = None
        self._users = 0
        self._pid = os.getpid()

    def acquire(self) -> zmq.Context[Any]:
        with self._lock:
            if self._pid != os.getpid():  # the parent's, useless here
                self._context, self._users, self._pid = None, 0, os.getpid()
            if self._context is None:
                self._context = zmq.Context()
            self._users += 1
            return self._context

    def release(self) -> zmq.Context[Any] | None:
        """Return the context if this was its last user, who must then end it."""
        with self._lock:
            self._users -= 1
            if self._users:
                return None
            context, self._context = self._context, None
            return context


_inproc = _InprocContext()


class ZmqTransport:
    """The sockets of one node: bound by the constructor, one peer more with each :meth:`connect`.

    Args:
        bind: the address to listen on; ``tcp://host:0`` takes a free port, see :attr:`address`.
        advertised: the address that peers use, if it is another one (NAT, ``tcp://*:port``).
        value_bytes_max: largest value that a frame may carry.
        frames_max: frames that ZeroMQ may queue for one peer.
        in_flight_bytes_max: bytes of large values that ZeroMQ may hold for one peer.
        ipv6: also speak IPv6.

    Raises:
        ConfigError: an address does not parse, is in use, or is not one of this machine's.
    """

    def __init__(
        self,
        bind: str,
        *,
        advertised: str | None = None,
        value_bytes_max: int,
        frames_max: int = 2048,
        in_flight_bytes_max: int = 64 << 20,
        ipv6: bool = False,
    ) -> None:
        bound = parse_address(bind, bind=True)
        if advertised is not None:
            parse_address(advertised)
        self._pid = os.getpid()
        self._ipv6 = ipv6 or bound.host.startswith("[")
        self._frames_max = frames_max
        self._message_bytes_max = value_bytes_max + FRAME_OVERHEAD_BYTES
        self._shared = bound.scheme == "inproc"
        self._context: zmq.Context[Any] = _inproc.acquire() if self._shared else zmq.Context()
        self._sockets: list[zmq.Socket[Any]] = []
        self._closed = False
        self._bound = ""
        try:
            router = self._router(bound)
            self.bound = router.getsockopt_string(zmq.LAST_ENDPOINT) if bound.scheme == "tcp" else bind
            self.address = advertised if advertised is not None else self.bound
            self.links = Links(
                router, payload_bytes_max=self._message_bytes_max, in_flight_bytes_max=in_flight_bytes_max
            )
        except BaseException:
            self.close()
            raise

    def _router(self, bound: Address) -> zmq.Socket[Any]:
        router: zmq.Socket[Any] = self._context.socket(zmq.ROUTER)
        self._sockets.append(router)
        self._set_common(router)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.MAXMSGSIZE, self._message_bytes_max)
        router.setsockopt(zmq.SNDHWM, 1)
        router.setsockopt(zmq.RCVHWM, self._frames_max)
        if bound.scheme == "ipc":
            _refuse_live_ipc(bound)
        try:
            router.bind(str(bound))
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot listen on {bound}: {_bind_advice(error, bound)}") from error
        self._bound = str(bound)
        return router

    def _set_common(self, socket: zmq.Socket[Any]) -> None:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int(self._ipv6))
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 5)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 2)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.TCP_MAXRT, 5000)

    def connect(self, node_id: int, address: str) -> None:
        """Open the two connections to one peer: one for values, one for what must not wait behind them
        (``_core/links.pxd`` says what goes where). The peer need not be up: ZeroMQ connects, and again, in the
        background.

        Only before the reactor starts.

        Raises:
            ConfigError: the address does not parse, or ``node_id`` has a connection already.
        """
        self._check_usable()
        parsed = parse_address(address)
        if parsed.scheme == "inproc" and not self._shared:
            raise ConfigError(
                f"peer {node_id} at {address}: this node must listen on inproc:// itself, not {self.bound}"
            )
        is_inproc = parsed.scheme == "inproc"
        for urgent in (False, True):
            self.links.add_peer(
                node_id,
                self._dealer(node_id, parsed),
                urgent=urgent,
                counted=not is_inproc,
                inproc=str(parsed) if is_inproc else "",
            )

    def _dealer(self, node_id: int, address: Address) -> zmq.Socket[Any]:
        dealer: zmq.Socket[Any] = self._context.socket(zmq.DEALER)
        self._sockets.append(dealer)
        self._set_common(dealer)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.setsockopt(zmq.SNDHWM, self._frames_max)
        dealer.setsockopt(zmq.RCVHWM, 1)
        dealer.setsockopt(zmq.MAXMSGSIZE, FRAME_OVERHEAD_BYTES)
        dealer.setsockopt(zmq.RECONNECT_IVL, 20)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        dealer.setsockopt(zmq.CONNECT_TIMEOUT, 1000)
        try:
            dealer.connect(str(address))
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot connect to peer {node_id} at {address}: {error.strerror}") from error
        return dealer

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise ConfigError(
                "this process was forked while the transport was open; a child must open its own replica, on "
                "its own data directory (use the 'spawn' start method of multiprocessing)"
            )
        if self._closed:
            raise ConfigError("the transport is closed")

    def close(self, *, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Close all sockets; call after the reactor has stopped. In a forked child this does nothing.

        Raises:
            StorageError: ZeroMQ did not let go within ``timeout_s``; its threads end with the process.
        """
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        if self._shared and self._bound:
            # The context may live on, and closing alone gives the name back only some time later.
            self._sockets[0].unbind(self._bound)
        for socket in self._sockets:
            socket.close(linger=0)
        context = _inproc.release() if self._shared else self._context
        if context is None:
            return
        ending = threading.Thread(target=context.term, name="paxos-zmq-term", daemon=True)
        ending.start()
        ending.join(timeout_s)
        if ending.is_alive():
            raise StorageError(f"ZeroMQ did not close within {timeout_s} s")


def _bind_advice(error: zmq.ZMQError, bound: Address) -> str:
    """Say why a bind failed and what to do about it."""
    if error.errno == errno.EADDRINUSE:
        return (
            "the address is in use. Stop the process that listens there (is this replica running already?) "
            "or choose another port"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return (
            f"this machine has no address {bound.host}. Listen on one of its own, or on tcp://*:{bound.port} "
            "and give peers an address that they can reach"
        )
    if error.errno == errno.EACCES:
        return "permission denied. Choose a port above 1023, or a path that this user may write"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "the directory of the socket does not exist; create it first"
    return f"{error.strerror} (errno {error.errno})"


def _refuse_live_ipc(bound: Address) -> None:
    """ZeroMQ replaces the file of an ipc socket even while somebody listens on it; refuse that."""
    path = bound.host
    if path.startswith("@"):
        return
    if not Path(path).exists():
        return
    probe = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        probe.settimeout(1.0)
        probe.connect(path)
    except ConnectionRefusedError:
        return
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {bound}: the path exists and is no socket of ours ({error}); remove it "
            "or choose another"
        ) from error
    finally:
        probe.close()
    raise ConfigError(
        f"cannot listen on {bound}: the address is in use. Stop the process that listens there "
        "(is this replica running already?) or choose another path"
    )
