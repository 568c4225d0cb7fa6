"""``witness.state`` holds everything that decides what an engine does next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "_core"
WITNESS = (CORE / "witness.pyx").read_text()

DECIDES_NOTHING = {
    "acceptor": {
        *("ready", "slots", "peers"),  # shared; seen on their own
        *("unchosen_bytes_max", "page_entries"),  # never change
        *("refused", "reports", "quarantine_reason"),  # only told: a count, the number on a promise, words
    },
    "learner": {"ready", "slots"},
    "proposer": {"ready", "slots", "window_slots", "window_bytes", "streams_to_self"},
    "heartbeat": {
        *("ready", "peers", "period_us", "election_timeout_us", "priority"),
        # Rounds: nothing of them outlives the moment for which no time passes.
        *("answers", "expected", "round", "round_is_open", "opened_us", "last_connected_us", "heard"),
        *("opened_at", "slow_us", "leader_is_new"),
        *("own_promised", "own_votes"),  # told anew before they are used
    },
    "outbox": {"items", "capacity", "held_bytes", "sent_us", "has_moved"},
    "peers": {"cluster", "group", "storage"},
    "slots": {"ring", "capacity", "held_bytes"},
    "pipeline": {
        *("ready", "count", "now_us", "retained_bytes_max", "progress_us", "progress_upto"),
        *("lag_seen_upto", "lag_rounds", "told_flags", "told_leader", "hello_round"),  # of rounds
        "log_position",  # only told
        "recovered_mark",  # read while recovering only
        "burst_ended",  # False between two steps
    },
}


def fields(module: str) -> set[str]:
    """Return the data fields of the extension class in a ``.pxd`` file."""
    text = (CORE / f"{module}.pxd").read_text()
    body = text[re.search(r"^cdef class ", text, re.MULTILINE).start() :]  # type: ignore[union-attr]
    body = re.sub(r"#.*", "", body)
    return set(
        re.findall(r"^    cdef (?:readonly )?(?:unsigned )?\w+ \*?(\w+)(?:\[\w+\])?\s*$", body, re.MULTILINE)
    )


@pytest.mark.parametrize("module", sorted(DECIDES_NOTHING))
def test_every_field_is_seen_or_decides_nothing(module: str) -> None:
    """Whoever adds a field: add it to ``_core/witness.pyx``, or say here why it decides nothing."""
    found = fields(module)
    assert len(found) >= 4
    part = WITNESS[WITNESS.index("def state" if module == "pipeline" else f"cdef tuple of_{module}(") :]
    part = part[: part.find("\ncdef tuple", 1)]
    missing = {name for name in found if not re.search(rf"\.{name}\b", part)}
    assert missing == DECIDES_NOTHING[module]
