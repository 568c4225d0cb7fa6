"""Messages by hand: frames as dataclasses and back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos import messages
from paxos._core.codec import FrameKind, decode_frame, encode_frame

NUMBER = st.integers(0, 2**64 - 1)
NODE = st.integers(1, 0xFFFF)


@given(
    st.one_of(
        st.builds(messages.Prepare, sender=NODE, ballot=NUMBER, from_slot=NUMBER),
        st.builds(messages.Open, sender=NODE, ballot=NUMBER, start=NUMBER),
        st.builds(
            messages.Accept, sender=NODE, ballot=NUMBER, slot=NUMBER, kind=st.integers(0, 3),
            value=st.binary(max_size=50), chosen_upto=NUMBER,
        ),
        st.builds(messages.Accepted, sender=NODE, ballot=NUMBER, upto=NUMBER),
        st.builds(
            messages.Nack, sender=NODE, ballot=NUMBER, reason=st.integers(1, 5), promised=NUMBER, expected=NUMBER
        ),
        st.builds(messages.Fetch, sender=NODE, slot=NUMBER, ballot=NUMBER),
        st.builds(
            messages.Fetched, sender=NODE, slot=NUMBER, ballot=NUMBER, status=st.integers(0, 3),
            kind=st.integers(0, 3), value=st.binary(max_size=50),
        ),
    )
)  # fmt: skip
def test_a_message_is_what_it_was_after_the_wire(message: messages.Message) -> None:
    data = messages.encode(message, receiver=7)
    assert messages.decode(data) == message and decode_frame(data)["receiver"] == 7


def test_messages_are_frozen_and_keyword_only() -> None:
    """Nobody changes a message that was sent."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        messages.Prepare(sender=1, ballot=1).ballot = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        messages.Prepare(1, 2)  # type: ignore[misc]


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(TypeError, match="not a message"):
        messages.encode(messages.Resign(), receiver=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not exchanged by hand"):
        messages.decode(encode_frame(FrameKind.PING, sender=1, receiver=2))
    with pytest.raises(ValueError, match="valid frame header"):
        messages.decode(b"")


@given(st.binary(max_size=200))
def test_g10_a_promise_with_any_payload_is_read_or_refused(payload: bytes) -> None:
    data = encode_frame(FrameKind.PROMISE, sender=1, receiver=2, payload=payload)
    try:
        messages.decode(data)
    except ValueError:
        return
