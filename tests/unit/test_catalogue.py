"""Every known bug has a test that bears its id, and docs/testing.md says where."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.catalogue import BEGIN, END, EXPECTED, GROUPS, KNOWN, ROOT, TESTING, WAITING, found_by_id, ids_of

FOUND = found_by_id()
TABLES = TESTING.read_text().partition(BEGIN)[2].partition(END)[0]
ROWS = {
    id: (text, where)
    for id, text, where in re.findall(r"^\| (\w+) \| (.*) \| (.*) \|$", TABLES, re.MULTILINE)
}
COUNTS = dict(zip("GPDKSRLMNCYZWXF", (10, 14, 10, 6, 6, 6, 9, 10, 7, 7, 6, 7, 9, 10, 18), strict=True))
RENEW = "run: python -m tests.catalogue"


def test_the_catalogue_is_complete() -> None:
    assert list(KNOWN) == [
        f"{letter}{number}" for letter in GROUPS for number in range(1, COUNTS[letter] + 1)
    ]
    assert Counter(id[0] for id in KNOWN) == COUNTS
    assert set(WAITING) <= set(KNOWN)


@pytest.mark.parametrize("id", KNOWN)
def test_a_known_bug_has_a_test_of_its_name(id: str) -> None:
    if id in WAITING:
        assert not FOUND.get(id), f"{id} is tested now: it waits for nothing any more"
    elif id not in EXPECTED:
        assert FOUND.get(id), f"no test_{id.lower()}_… anywhere in tests/"


@pytest.mark.parametrize("id", KNOWN)
def test_the_document_says_where_it_is_tested(id: str) -> None:
    assert id in ROWS, RENEW
    text, where = ROWS[id]
    assert text == KNOWN[id], RENEW
    if id in WAITING:
        assert where == f"with {WAITING[id]}", RENEW
        return
    files = re.findall(r"`([^`]+)`", where)
    assert files or id in EXPECTED, RENEW
    for file in files:
        assert (ROOT / file).is_file() and FOUND[id].get(file), f"{file} has no test of {id}; {RENEW}"


def test_no_test_bears_an_id_that_nobody_explains() -> None:
    histories = set(re.findall(r"^\| (h\d+) \|", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE))
    invariants = set(re.findall(r"^\| (I\d+) \|", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE))
    assert histories and invariants
    for id, files in FOUND.items():
        assert id in KNOWN or id in histories or id in invariants, f"{id} in {dict(files)}"


def test_every_history_of_the_protocol_has_a_test_of_its_name() -> None:
    told = re.findall(r"^\| (h\d+) \|.*", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE)
    later = {"h8", "h10", "h11", "h12", "h19", "h23"}  # of reads, leases and membership changes
    assert [id for id in told if not FOUND.get(id) and id not in later] == []


def test_ids_are_read_off_the_beginning_of_a_name() -> None:
    assert ids_of("test_p1_p2_a_crash_around_the_sync") == {"P1", "P2"}
    assert ids_of("test_p1a_a_prepare") == {"P1"}
    assert ids_of("test_h6_h24_a_damaged_vote") == {"h6", "h24"}
    assert ids_of("test_a_p1_in_the_middle") == set()
