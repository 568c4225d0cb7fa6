"""Buffers: immutable, shared, and alive as long as anyone looks at them (X4)."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos._core import buffer


@given(st.binary(max_size=1000))
def test_a_copy_holds_the_same_bytes(data: bytes) -> None:
    view = buffer.copy_of(data)
    assert bytes(view) == data
    assert len(view) == len(data)
    assert bytes(memoryview(view)) == data


def test_a_copy_does_not_follow_its_source() -> None:
    source = bytearray(b"before")
    view = buffer.copy_of(source)
    source[:] = b"after!"
    assert bytes(view) == b"before"


def test_values_are_read_only() -> None:
    view = memoryview(buffer.copy_of(b"abc"))
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1


def test_x4_a_memoryview_keeps_the_bytes_alive() -> None:
    view = memoryview(buffer.copy_of(b"x" * 100_000))
    gc.collect()
    [buffer.copy_of(b"y" * 100_000) for _ in range(20)]
    assert bytes(view) == b"x" * 100_000


def test_a_view_made_from_python_is_empty_and_does_no_harm() -> None:
    with pytest.raises(TypeError):
        buffer.copy_of(None)  # type: ignore[arg-type]
