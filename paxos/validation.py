"""Check what callers pass before anything is opened: every mistake gets a message that says what to do."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from paxos.errors import ConfigError
from paxos.types import Config

NODE_ID_MAX = 0xFFFF
MEMBERS_MAX = 63
CLUSTER_NAME_BYTES_MAX = 255
IPC_PATH_BYTES_MAX = 100

_TCP = re.compile(r"^tcp://(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})$")


def check_directory(directory: object) -> Path:
    """Return the data directory as a path.

    >>> check_directory("data/n1").name
    'n1'
    """
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"directory must be a path, not {type(directory).__name__}")
    path = Path(os.fspath(directory))
    if not str(directory):
        raise ConfigError("directory is empty: give the path of a data directory")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file: give a data directory (it is made if it does not exist)")
    return path


def check_node_id(node_id: object) -> int:
    """Return the node id, an int of 1 .. 65535."""
    if not isinstance(node_id, int) or isinstance(node_id, bool):
        raise TypeError(f"node_id must be an int, not {node_id!r}")
    if not 1 <= node_id <= NODE_ID_MAX:
        raise ConfigError(f"node_id must be 1..{NODE_ID_MAX}, not {node_id}")
    return node_id


def check_address(address: object) -> str:
    """Return a ZeroMQ address of a member: ``tcp://host:port``, ``ipc://path`` or ``inproc://name``.

    >>> check_address("tcp://10.0.0.1:7001")
    'tcp://10.0.0.1:7001'
    >>> check_address("10.0.0.1:7001")
    Traceback (most recent call last):
    ...
    paxos.errors.ConfigError: address '10.0.0.1:7001' does not parse: write tcp://host:port, ipc://path or inproc://name
    """
    if not isinstance(address, str):
        raise TypeError(f"an address must be a str, not {address!r}")
    if address.startswith("tcp://"):
        match = _TCP.match(address)
        if match is None:
            raise ConfigError(f"address {address!r} does not parse: write tcp://host:port")
        if match["host"] == "*":
            raise ConfigError(
                f"address {address!r} cannot be connected to: name a host (bind= may be tcp://*:port)"
            )
        if not 1 <= int(match["port"]) <= 65535:
            raise ConfigError(f"address {address!r}: the port must be 1..65535")
        return address
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://")
        if not path or len(os.fsencode(path)) > IPC_PATH_BYTES_MAX:
            raise ConfigError(f"address {address!r}: the path must be 1..{IPC_PATH_BYTES_MAX} bytes")
        return address
    if address.startswith("inproc://") and len(address) > len("inproc://"):
        return address
    raise ConfigError(
        f"address {address!r} does not parse: write tcp://host:port, ipc://path or inproc://name"
    )


def check_bind(bind: object) -> str:
    """Return the address to bind: like a member's, and ``tcp://*:port`` is allowed."""
    if isinstance(bind, str) and bind.startswith("tcp://*:"):
        check_address("tcp://any" + bind.removeprefix("tcp://*"))
        return bind
    return check_address(bind)


def check_members(members: object, node_id: int) -> dict[int, str]:
    """Return the members by node id, sorted; this node is one of them.

    Args:
        members: a mapping of node id to address, or an iterable of such pairs (in which a node id that
            occurs twice is noticed).
    """
    if isinstance(members, Mapping):
        pairs: Iterable[Any] = members.items()
    elif isinstance(members, Iterable) and not isinstance(members, str | bytes):
        pairs = members
    else:
        raise TypeError(f"members must be a mapping of node id to address, not {type(members).__name__}")
    checked: dict[int, str] = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"members must be a mapping of node id to address; {pair!r} is no such pair")
        if not isinstance(pair[0], int):
            raise TypeError(f"members: a node id must be an int, not {pair[0]!r}")
        member = check_node_id(pair[0])
        if member in checked:
            raise ConfigError(f"members: node id {member} occurs twice")
        checked[member] = check_address(pair[1])
    if not checked:
        raise ConfigError("members is empty: leave it out for a one-node log, or name every member")
    if len(checked) > MEMBERS_MAX:
        raise ConfigError(f"members: at most {MEMBERS_MAX}, not {len(checked)}")
    if node_id not in checked:
        raise ConfigError(
            f"members {sorted(checked)} do not include this node ({node_id}): add its own address, "
            "or correct node_id"
        )
    seen: dict[str, int] = {}
    for member, address in checked.items():
        if address in seen:
            raise ConfigError(f"members: nodes {seen[address]} and {member} have the same address {address}")
        seen[address] = member
    return dict(sorted(checked.items()))


def check_cluster_name(cluster: object) -> str:
    """Return the cluster's name."""
    if not isinstance(cluster, str):
        raise TypeError(f"cluster must be a str, not {cluster!r}")
    if not cluster or len(cluster.encode()) > CLUSTER_NAME_BYTES_MAX:
        raise ConfigError(f"cluster must have 1..{CLUSTER_NAME_BYTES_MAX} bytes, not {cluster!r}")
    return cluster


def check_config(config: object) -> Config:
    """Return the configuration; ``None`` is the default one."""
    if config is None:
        return Config()
    if not isinstance(config, Config):
        raise TypeError(f"config must be a paxos.Config, not {type(config).__name__}")
    return config


def check_state_machine(machine: object) -> Any:
    """Return the state machine; ``None`` is allowed."""
    if machine is None:
        return None
    if isinstance(machine, type):
        raise TypeError(f"state_machine must be an instance: write state_machine={machine.__name__}()")
    if not callable(getattr(machine, "apply", None)) and not callable(getattr(machine, "apply_batch", None)):
        raise TypeError(f"state_machine must have an apply method; {type(machine).__name__} has none")
    return machine


def check_command(command: object, bytes_max: int) -> bytes:
    """Return the command as bytes."""
    if type(command) is not bytes:
        if not isinstance(command, bytes | bytearray | memoryview):
            raise TypeError(f"a command must be bytes, not {type(command).__name__}: encode it first")
        command = bytes(command)
    if len(command) > bytes_max:
        raise ConfigError(
            f"a command of {len(command)} bytes is over the limit of {bytes_max} (Config.command_bytes_max): "
            "split it, or store it elsewhere and replicate a reference"
        )
    return command


def check_timeout(timeout: object, name: str = "timeout") -> float | None:
    """Return a timeout in seconds; ``None`` waits for ever."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(f"{name} must be seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ConfigError(f"{name} must not be negative, not {timeout}")
    return float(timeout)


def check_function(function: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """Return what a read runs on the state machine."""
    if function is not None and not callable(function):
        raise TypeError(f"a read takes a function of the state machine, or None, not {function!r}")
    return function


def check_index(index: object, name: str = "index") -> int:
    """Return an index of the log: indices start at 1."""
    if not isinstance(index, int) or isinstance(index, bool):
        raise TypeError(f"{name} must be an int, not {index!r}")
    if index < 1:
        raise ConfigError(f"{name} must be at least 1 (the log starts at 1), not {index}")
    return index


def cluster_id(cluster: str, members: Mapping[int, str]) -> int:
    """Return the 64-bit id of a cluster, from its name and its first members; never 0.

    It keeps frames of another cluster out, whose members happen to have the same addresses.

    >>> one = cluster_id("paxos", {1: "tcp://a:1", 2: "tcp://b:1"})
    >>> one == cluster_id("paxos", {2: "tcp://b:1", 1: "tcp://a:1"})
    True
    >>> one == cluster_id("other", {1: "tcp://a:1", 2: "tcp://b:1"})
    False
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (cluster, *(f"{member}={members[member]}" for member in sorted(members))):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little") or 1
