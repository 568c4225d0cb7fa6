"""Configurations: who the members are, and the value that says so in the log.

A configuration chosen in slot s governs the slots from s + 1 on. The first one, in slot 1, binds the node ids
that the constructor named to the storage UUIDs that these nodes showed; from then on an empty, copied or
foreign disk under a member's id does not vote (history h13).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

_HEAD = struct.Struct("<HHHH")
_MEMBER = struct.Struct("<H16sBH")
_VERSION = 1
_VOTER = 1
ADDRESS_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One voting member: where it listens and which disk it is."""

    address: str
    storage: bytes


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members of a log and the sizes of its quorums."""

    members: Mapping[int, Member]
    prepare_size: int
    accept_size: int

    def encode(self) -> bytes:
        """Return the value of a CONFIGURATION slot.

        Raises:
            ValueError: an address is too long, or a storage UUID has not 16 bytes.
        """
        parts = [_HEAD.pack(_VERSION, len(self.members), self.prepare_size, self.accept_size)]
        for node_id, member in sorted(self.members.items()):
            address = member.address.encode()
            if len(address) > ADDRESS_BYTES_MAX or len(member.storage) != 16:
                raise ValueError(
                    f"member {node_id}: address {member.address!r}, storage of {len(member.storage)} bytes"
                )
            parts.append(_MEMBER.pack(node_id, member.storage, _VOTER, len(address)))
            parts.append(address)
        return b"".join(parts)

    @classmethod
    def decode(cls, value: bytes) -> Configuration:
        """Read the value of a CONFIGURATION slot.

        Raises:
            ValueError: the bytes are not a configuration of a version that this release knows.
        """
        try:
            version, count, prepare_size, accept_size = _HEAD.unpack_from(value)
            if version != _VERSION:
                raise ValueError(f"configuration version {version}; this release knows {_VERSION}")
            offset = _HEAD.size
            members: dict[int, Member] = {}
            for _ in range(count):
                node_id, storage, _role, length = _MEMBER.unpack_from(value, offset)
                offset += _MEMBER.size
                if length > ADDRESS_BYTES_MAX or offset + length > len(value):
                    raise ValueError("a member's address reaches beyond the value")
                members[node_id] = Member(address=value[offset : offset + length].decode(), storage=storage)
                offset += length
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"not a configuration: {error}") from error
        if offset != len(value) or len(members) != count or not members:
            raise ValueError("not a configuration: members and length do not agree")
        return cls(members=members, prepare_size=prepare_size, accept_size=accept_size)


def first_incarnation(storage: bytes) -> int:
    """Return the number of the first start of the directory ``storage``.

    A wiped or foreign directory under a member's id must not repeat a number that its peers have verified for
    the old one: they would take its frames for those of the bound storage, and its tickets for old ones [S1].
    """
    return 1 + int.from_bytes(storage[:4], "big")
