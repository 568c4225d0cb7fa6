"""100,000 hostile frames, and hostile bytes for everything else that reads some: a value or a documented error.

The targets are those of the long runs (``make fuzz``). ``PAXOS_FUZZ=20`` multiplies the amounts.
"""

from __future__ import annotations

import os
import resource
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paxos._core import codec
from paxos.engine import Engine
from tests.fuzz import corpus, targets
from tests.fuzz.targets import Bed
from tests.unit.engine_kit import CLUSTER, Cluster, Node, hello, ping

TIMES = int(os.environ.get("PAXOS_FUZZ", "1"))
GROUPS = 4
FRAMES_IN_A_GROUP = 25_000 * TIMES
KEPT = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=300 * TIMES)


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    return corpus.record()


def rss_max() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def tries(node: Node) -> int:
    """How many frames the engine has counted, one way or the other."""
    counters = node.engine.counters()
    refused = ("wrong_cluster", "wrong_receiver", "unknown_sender", "unverified", "broken")
    return counters["frames"] + sum(counters[name] for name in refused)


def test_the_corpus_has_frames_of_every_kind_that_is_sent(frames: list[bytes]) -> None:
    kinds = {codec.decode_frame(data)["kind"] for data in frames}
    missing = {kind for kind in codec.FrameKind if kind not in kinds}
    assert len(kinds) >= 12, missing


@pytest.mark.parametrize("group", range(GROUPS))
def test_f17_g10_any_frame_is_a_value_or_a_value_error(group: int, frames: list[bytes]) -> None:
    """F17: recorded frames, broken and absurd: no crash, no other exception, bounded memory, all counted."""
    chance = Random(group)
    bed = Bed()
    before = rss_max()
    for _ in range(FRAMES_IN_A_GROUP):
        data = corpus.broken(chance, frames)
        if chance.random() < 0.8:
            data = corpus.absurd(chance, frames)
            if chance.random() < 0.9:
                data = corpus.aim(chance, data, bed.node.id)
        targets.decoders(data)
        targets.decoders(data[72:])
        bed.take(data, to_control=chance.random() < 0.5)
    assert bed.lives >= FRAMES_IN_A_GROUP // targets.LIFE_FRAMES
    assert bed.admitted > FRAMES_IN_A_GROUP // 2  # the others were counted at the gate, or were no frames
    assert rss_max() - before < 256 << 20
    # Whatever it was told, it still answers. (Its members may have been told of any life of theirs.)
    last, node = 2**64 - 1, bed.node
    other = node.id % 3 + 1
    answers = node.step(
        hello(other, node.id, incarnation=last),
        ping(other, node.id, round=1, incarnation=last),
        now_us=bed.now_us,
    )
    assert any(answer["kind"] == codec.FrameKind.PONG for answer in answers)


def state_of(engine: Engine) -> dict[str, object]:
    """Everything about a node that a stranger must not be able to change."""
    seen = engine.glance() | engine.inspect()
    return {name: value for name, value in seen.items() if name not in ("round",)}


def test_f17_what_strangers_say_changes_nothing(frames: list[bytes]) -> None:
    """Another cluster, another receiver, no member, a life that did not greet, or broken: counted, and that is all."""
    chance = Random(5)
    cluster = Cluster(3)
    leader = cluster.lead()
    cluster[leader].propose(b"a")
    cluster.settle(b"a")
    node = cluster[leader]
    before, counted = state_of(node.engine), tries(node)
    taken = 0
    for _ in range(10_000 * TIMES):
        data = corpus.absurd(chance, frames)
        fields = codec.decode_frame(data)
        fields["receiver"] = leader
        match chance.randrange(5):
            case 0:
                fields["cluster"] = chance.choice([0, CLUSTER + 1, 2**64 - 1])
            case 1:
                fields["receiver"] = chance.choice([id for id in (0, 1, 2, 3, 4, 65535) if id != leader])
            case 2:
                fields["sender"] = chance.choice([0, 4, 255, 65535])
            case 3:
                fields["kind"] = fields["kind"] if fields["kind"] != codec.FrameKind.HELLO else 0
                fields["incarnation"] = chance.choice([0, 2, 77, 2**64 - 1])
            case _:
                fields["group"] = chance.choice([1, 2**32 - 1])
        taken += node.engine.step(corpus.reseal(fields), cluster.now_us)
        node.engine.step(corpus.broken(chance, [data]), cluster.now_us)
    assert taken == 10_000 * TIMES
    assert tries(node) - counted >= taken
    node.carry_out(cluster.now_us)
    assert state_of(node.engine) == before
    cluster[leader].propose(b"b")
    cluster.settle(b"b")
    assert cluster.leaders == [leader]


@KEPT
@given(data=st.binary(max_size=400))
def test_f8_a_segment_with_hostile_bytes_is_read_or_called_damaged(data: bytes) -> None:
    targets.wal(data)


@KEPT
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet='{}[]":,0123456789eE.-nulltrufas', max_size=60).map(str.encode),
    )
)
@example(b"[" * 100_000)
@example(b'{"crc32c": 1, "format_version": Infinity}')
@example(b'{"crc32c": 1, "format_version": 1e999}')
@example(b'{"crc32c": 1, "format_version": ' + b"9" * 5000 + b"}")
def test_k4_an_identity_of_any_bytes_is_refused(data: bytes) -> None:
    targets.identity(data)


@settings(KEPT, max_examples=60 * TIMES)
@given(data=st.binary(max_size=300))
@example(b"")
@example(bytes(8) + bytes(32))
@example(b"\0\1")
def test_w8_entries_of_any_bytes_in_the_catalogue_are_refused(data: bytes) -> None:
    targets.catalogue(data)
