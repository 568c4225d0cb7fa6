"""A sample of ``python -m tests.damage``: damage is repaired or ends in quarantine or a clean stop, never in a lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import blocks
from tests.damage.crashes import Crashes
from tests.damage.logs import DamagedLog, WrongAnswer

HARMLESS = "unharmed"
TORN = "repaired: a torn tail is cut"
FETCHED = "repaired: a value is fetched"


@pytest.fixture
def log(tmp_path: Path) -> DamagedLog:
    return DamagedLog(tmp_path)


def test_f8_a_flipped_bit_is_repaired_or_ends_in_quarantine(log: DamagedLog) -> None:
    found = log.flips(range(0, len(log.image), 23))
    assert set(found) == {HARMLESS, TORN, FETCHED, "quarantined"}


def test_f9_truncated_replaced_and_misplaced(log: DamagedLog) -> None:
    assert set(log.truncations(range(0, len(log.image), 97))) == {"quarantined"}
    log.tails(range(512, len(log.image), 509))
    assert log.misplaced(500)["quarantined"] > 400


def test_f4_d9_whatever_power_loss_leaves_holds_all_that_was_acknowledged(tmp_path: Path) -> None:
    assert sum(Crashes(tmp_path).run(400).values()) >= 5000


def test_f8_w8_one_fault_in_a_block_of_any_file(tmp_path: Path) -> None:
    found = blocks.run(tmp_path)
    assert {kind for _, kind, _ in found} >= {"segment", "identity.json", "catalogue/data.mdb", "lock"}
    assert {outcome for _, _, outcome in found} >= {HARMLESS, FETCHED, "quarantined"}


def test_the_judges_can_fail(log: DamagedLog) -> None:
    """A log in which another value was really written is a wrong answer, and so is a vote that went missing."""
    slot, ballot = next(key for key in log.values if key[0] in log.chosen)
    log.values[slot, ballot] ^= 1
    log.chosen[slot] ^= 1
    with pytest.raises(WrongAnswer):
        log.outcome(log.image)
    with pytest.raises(WrongAnswer):
        blocks.judge(
            {"chosen": {"1": 5}, "commands": []}, {"chosen": {"1": 6}, "commands": [], "quarantined": False}
        )
    healthy = {"chosen": {}, "commands": [], "promised": 7, "held": [1]}
    with pytest.raises(WrongAnswer, match="promise"):
        blocks.judge(healthy, healthy | {"promised": 6, "damaged": [], "quarantined": False})
    with pytest.raises(WrongAnswer, match="vote"):
        blocks.judge(healthy, healthy | {"held": [], "damaged": [], "quarantined": False})
