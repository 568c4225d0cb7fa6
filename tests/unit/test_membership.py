"""Configurations as values of the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos._core import ballot as ballots
from paxos._core.peers import Peers
from paxos.membership import ADDRESS_BYTES_MAX, Configuration, Member
from paxos.messages import Campaign, Configure
from tests.unit.engine_kit import Node, storage_of


def configuration(*nodes: int) -> Configuration:
    members = {n: Member(address=f"tcp://10.0.0.{n}:7", storage=storage_of(n)) for n in nodes}
    size = len(members) // 2 + 1
    return Configuration(members=members, prepare_size=size, accept_size=size)


@given(
    st.dictionaries(
        st.integers(1, 0xFFFF),
        st.tuples(st.text(max_size=40), st.binary(min_size=16, max_size=16)),
        min_size=1,
        max_size=9,
    )
)
def test_a_configuration_survives_the_log(members: dict[int, tuple[str, bytes]]) -> None:
    made = Configuration(
        members={n: Member(address=address, storage=storage) for n, (address, storage) in members.items()},
        prepare_size=1,
        accept_size=1,
    )
    assert Configuration.decode(made.encode()) == made


def test_the_same_members_in_another_order_are_the_same_bytes() -> None:
    assert configuration(1, 2, 3).encode() == configuration(3, 1, 2).encode()


def test_every_torn_configuration_is_refused() -> None:
    value = configuration(1, 2, 3).encode()
    for size in range(len(value)):
        with pytest.raises(ValueError, match=r"configuration|address"):
            Configuration.decode(value[:size])
    with pytest.raises(ValueError, match="do not agree"):
        Configuration.decode(value + b"\0")


@given(st.binary(max_size=120))
def test_g10_any_bytes_are_a_configuration_or_a_value_error(value: bytes) -> None:
    try:
        Configuration.decode(value)
    except ValueError:
        return


def test_another_version_is_refused_by_name() -> None:
    value = configuration(1).encode()
    with pytest.raises(ValueError, match="version 2"):
        Configuration.decode(b"\x02\x00" + value[2:])


@pytest.mark.parametrize(
    "member",
    [Member(address="x" * (ADDRESS_BYTES_MAX + 1), storage=bytes(16)), Member(address="x", storage=b"short")],
)
def test_what_cannot_be_read_back_is_not_written(member: Member) -> None:
    with pytest.raises(ValueError, match="member 1"):
        Configuration(members={1: member}, prepare_size=1, accept_size=1).encode()


def test_only_a_newer_configuration_is_installed() -> None:
    """M9, M7: the newest chosen one rules, whatever order it is told in."""
    node = Node(1)
    node.engine.act(Configure(slot=5, members={n: storage_of(n) for n in (1, 2, 3)}))
    for slot in (5, 4, 0):
        node.engine.act(Configure(slot=slot, members={1: storage_of(1)}))
    assert set(node.members) == {1, 2, 3} and node.config_slot == 5


def test_a_removed_node_is_no_member_and_does_not_campaign() -> None:
    node = Node(1).greet()
    node.engine.act(Configure(slot=5, members={n: storage_of(n) for n in (2, 3)}))
    node.engine.act(Campaign(ballot=ballots.make(1, 1), from_slot=1))
    assert node.step() == []


@pytest.mark.parametrize(
    "members", [{}, dict.fromkeys(range(1, 65)), {0: None}, {1: b"short"}, {1 << 16: None}]
)
def test_members_that_make_no_sense_are_refused(members: dict[int, bytes | None]) -> None:
    with pytest.raises(ValueError, match=r"members|node id|UUID"):
        Peers(1, members)
