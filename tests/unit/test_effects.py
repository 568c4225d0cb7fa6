"""Ready: an empty bundle is empty, and its Python face checks what it is given."""

from __future__ import annotations

import pytest

from paxos._core import effects


def test_a_new_bundle_is_empty() -> None:
    ready = effects.Ready()
    assert ready.is_empty
    assert ready.records == []
    assert ready.take_send_now() == []
    assert ready.take_send_after_sync() == []
    assert ready.take_cold() == []
    assert ready.take_chosen() == []


@pytest.mark.parametrize("index", [-1, 0, 1])
def test_positions_are_only_set_on_records_that_exist(index: int) -> None:
    with pytest.raises(IndexError, match="record"):
        effects.Ready().set_position(index, 0)


def test_record_kinds_in_the_log_are_never_renumbered() -> None:
    assert {kind.name: kind.value for kind in effects.RecordKind} == {
        "RECORD_PROMISE": 1,
        "RECORD_ACCEPT": 2,
        "RECORD_CHOSEN": 3,
        "RECORD_MARK": 4,
        "RECORD_INCARNATION": 5,
        "RECORD_TRIM": 6,
        "RECORD_QUARANTINE": 7,
        "RECORD_PEER": 8,
    }
