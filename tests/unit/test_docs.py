"""What the documents say about the code is true, as far as a program can tell."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from paxos._core.codec import FetchStatus, FrameKind, NackReason, ValueKind, encode_batch, encode_frame
from paxos._core.effects import RecordKind
from paxos.membership import Configuration, Member
from paxos.messages import PROMISE_ENTRY, PROMISE_HEAD

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
WIRE_FORMAT = (ROOT / "docs" / "wire-format.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
WITHIN_A_NODE = {FrameKind.ROUND_CLOSED, FrameKind.STOPPED_LEADING}
RESERVED = {kind for kind in FrameKind if 19 <= kind <= 24}


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name) if name else path
        assert found.exists(), f"{path.name} points to {target}"
        assert not anchor or anchor in anchors(found.read_text()), f"{path.name} points to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(path: Path) -> None:
    for name in re.findall(r"`((?:_core|paxos|examples|docs|tools|tests)/[\w./-]+)`", path.read_text()):
        folder, _, stem = name.rpartition("/")
        found = [*(ROOT / folder).glob(stem), *(ROOT / folder).glob(f"{stem}.*")]
        assert found, f"{path.name} names {name}"


@pytest.mark.parametrize("kind", sorted(FrameKind))
def test_every_frame_kind_is_in_the_table_under_its_number(kind: FrameKind) -> None:
    if kind in RESERVED or kind in WITHIN_A_NODE:
        assert camel(kind.name) in WIRE_FORMAT
    else:
        assert re.search(rf"^\| {int(kind)} \| {camel(kind.name)} \|", WIRE_FORMAT, re.MULTILINE)
    if kind not in WITHIN_A_NODE:
        assert f"`{camel(kind.name)}" in PROTOCOL


@pytest.mark.parametrize("kind", sorted(RecordKind))
def test_every_record_kind_is_in_the_table_under_its_number(kind: RecordKind) -> None:
    word = kind.name.removeprefix("RECORD_").lower()
    assert re.search(rf"^\| {int(kind)} \| {word} \|", WIRE_FORMAT, re.MULTILINE)


def test_the_sizes_are_those_of_the_code() -> None:
    header = encode_frame(FrameKind.DECIDE, sender=1, receiver=2)
    assert f"### Header, {len(header)} bytes" in WIRE_FORMAT
    assert header[:4] == b"PX\x01\x0a"
    batch = encode_batch([b"abc"], origin=1, incarnation=1, first_ticket=1)
    assert f"**Batch**: a head of {len(batch) - 4 - 3} bytes" in WIRE_FORMAT
    assert f"a head of {PROMISE_HEAD.size} bytes: trimmed" in WIRE_FORMAT
    assert f"entries of {PROMISE_ENTRY.size} bytes: slot" in WIRE_FORMAT
    one = Configuration(members={1: Member("tcp://a:1", bytes(16))}, prepare_size=1, accept_size=1).encode()
    assert len(one) == 4 * 2 + 2 + 16 + 1 + 2 + len("tcp://a:1")


def test_the_lists_of_reasons_are_complete() -> None:
    assert [int(reason) for reason in NackReason] == [1, 2, 3, 4, 5]
    assert [int(status) for status in FetchStatus] == [0, 1, 2, 3]
    assert [int(kind) for kind in ValueKind] == [1, 2, 3]


def test_invariants_and_histories_are_numbered_without_gaps() -> None:
    for letter in "Ih":
        found = re.findall(rf"^\| {letter}(\d+) \|", PROTOCOL, re.MULTILINE)
        assert found == [str(number) for number in range(1, len(found) + 1)]


def test_a_history_that_the_code_cites_is_told() -> None:
    told = set(re.findall(r"^\| (h\d+) \|", PROTOCOL, re.MULTILINE))
    for path in [*ROOT.glob("_core/*.p[yx][xd]"), *ROOT.glob("paxos/*.py"), *ROOT.glob("paxos/s*/*.py")]:
        cited = re.findall(r"[\[(](h\d+)[\])]", path.read_text())
        assert set(cited) <= told, path.name


def test_names_in_the_table_of_invariants_are_in_the_code() -> None:
    table = PROTOCOL[PROTOCOL.index("## Invariants") : PROTOCOL.index("## Why the rules")]
    sources = "".join(
        path.read_text()
        for pattern in ("_core/*.pyx", "paxos/*.py", "paxos/storage/*.py")
        for path in ROOT.glob(pattern)
    )
    for name in re.findall(r"`([A-Za-z_.]+)`", table):
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", sources), name


def test_decisions_are_numbered_and_say_context_decision_consequences() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [path.name[:4] for path in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for path in files:
        text = path.read_text()
        assert text.startswith(f"# {path.name[:4]} · ")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text, f"{path.name} lacks {part}"


def test_the_figures_of_the_readme_come_from_measured_results_only() -> None:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools" / "figures.py")
    assert spec is not None and spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    result = {
        "name": "propose", "face": "propose", "command_bytes": 256, "outstanding": 1, "replicas": 3,
        "durability": "fdatasync", "ops_per_s": 2500.0, "p50_us": 300.0, "p99_us": 600.0,
        "floor": {"fdatasync_us": 200.0, "rtt_us": 100.0},
        "versions": {"python": "3.11", "libzmq": "4.3.5"},
        "machine": {"cpu": "some", "cpus": 2, "kernel": "6"},
    }  # fmt: skip
    assert "| propose | 256 B | 1 | 300 | 600 | 300 | 1.00 / 2.00 |  |" in figures.table([result])
    several = result | {"name": "submit", "outstanding": 1024}
    assert figures.table([several]).splitlines()[2].endswith("|  | 2,500 |")
    readme = (ROOT / "README.md").read_text()
    assert readme.count(figures.BEGIN) == readme.count(figures.END) == 1
