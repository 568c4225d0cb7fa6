"""Exactly once: tickets of one (origin, incarnation) count 1, 2, 3 ... over the chosen log (G3)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from paxos._core import codec
from tests.unit.engine_kit import KIND, Node, batch, frame


def apply(*values: bytes) -> Node:
    """Return a node that learned these values as chosen, in slots 1, 2, 3 ..."""
    node = Node(1).greet()
    for slot, value in enumerate(values, 1):
        node.step(frame(KIND.CHOSEN, 2, 1, slot=slot, mark=slot, detail=codec.ValueKind.BATCH, payload=value))
    assert node.chosen_upto == len(values)
    return node


def test_g3_a_batch_chosen_twice_counts_once() -> None:
    node = apply(batch(2, 1, b"a", b"b"), batch(2, 1, b"a", b"b"), batch(2, 3, b"c"))
    assert [item.index for item in node.applied] == [1, 0, 3]


def test_g3_a_batch_ahead_of_its_turn_counts_when_it_comes_again() -> None:
    node = apply(batch(2, 2, b"b"), batch(2, 1, b"a"), batch(2, 2, b"b"))
    assert node.commands == [b"a", b"b"]


def test_h21_a_batch_that_overtook_another_does_not_silence_it() -> None:
    """h21, C6: what is missing in the middle is not skipped, either."""
    node = apply(batch(2, 1, b"a"), batch(2, 3, b"c"), batch(2, 2, b"b"), batch(2, 3, b"c"))
    assert node.commands == [b"a", b"b", b"c"]
    assert [item.index for item in node.applied] == [1, 0, 2, 3]


def test_h21_an_own_batch_that_was_chosen_too_early_is_kept_and_sent_again() -> None:
    """h21: chosen is not applied; its origin gives it up when it counts, and not before."""
    node = Node(1).greet()
    node.propose(b"a")
    node.propose(b"b")
    assert node.engine.glance()["outbox_batches"] == 2
    left = []
    for slot, value in enumerate((batch(1, 2, b"b"), batch(1, 1, b"a"), batch(1, 2, b"b")), 1):
        node.step(frame(KIND.CHOSEN, 2, 1, slot=slot, mark=slot, detail=codec.ValueKind.BATCH, payload=value))
        left.append(node.engine.glance()["outbox_batches"])
    assert left == [2, 1, 0] and node.commands == [b"a", b"b"]


def test_an_overlapping_batch_does_not_count() -> None:
    node = apply(batch(2, 1, b"a", b"b"), batch(2, 2, b"b", b"c"))
    assert node.commands == [b"a", b"b"]


def test_origins_do_not_disturb_each_other() -> None:
    node = apply(batch(2, 1, b"a"), batch(3, 1, b"b"), batch(2, 2, b"c"), batch(3, 2, b"d"))
    assert node.commands == [b"a", b"b", b"c", b"d"]
    assert node.sessions == {2: (1, 2), 3: (1, 2)}


def test_a_later_life_silences_the_earlier() -> None:
    """An old life's batch that is chosen late is applied nowhere."""
    node = apply(
        batch(2, 1, b"old"),
        batch(2, 1, b"new", incarnation=2),
        batch(2, 2, b"late"),
        batch(2, 2, b"n2", incarnation=2),
    )
    assert node.commands == [b"old", b"new", b"n2"] and node.sessions == {2: (2, 2)}


def test_a_later_life_starts_at_its_first_ticket() -> None:
    node = apply(batch(2, 1, b"a"), batch(2, 2, b"b", incarnation=2))
    assert node.commands == [b"a"]


def test_a_broken_batch_counts_nothing_and_stops_nobody() -> None:
    node = apply(b"garbage", b"", batch(2, 1, b"a"))
    assert node.commands == [b"a"] and node.last_index == 1


def test_more_origins_than_one_page_of_the_table() -> None:
    node = apply(*(batch(origin, 1, b"x") for origin in range(1, 101)))
    assert len(node.sessions) == 100 and node.last_index == 100


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.integers(1, 3)), max_size=25
    )
)
def test_g3_the_table_agrees_with_a_twin(chosen: list[tuple[int, int, int, int]]) -> None:
    """A dictionary decides alike, for any sequence of batches; replay after a restart too."""
    last: dict[int, tuple[int, int]] = {}
    expected = []
    index = 0
    values = []
    for origin, life, first, count in chosen:
        values.append(batch(origin, first, *(b"c" for _ in range(count)), incarnation=life))
        known, ticket = last.get(origin, (0, 0))
        admitted = first == 1 if life > known else (life == known and first == ticket + 1)
        expected.append(index + 1 if admitted else 0)
        if admitted:
            last[origin] = (life, first + count - 1)
            index += count
    node = apply(*values)
    assert [item.index for item in node.applied] == expected
    assert node.sessions == last and node.last_index == index
    before = node.sessions
    node.start()
    node.greet()
    assert all(before[origin] >= known for origin, known in node.sessions.items())
