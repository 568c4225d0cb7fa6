"""The page with the diagram of a run: complete, self-contained, escaped; and in a browser, where there is one."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from paxos.sim import diagram
from paxos.sim.__main__ import main
from paxos.sim.diagram.__main__ import main as convert
from paxos.sim.run import run_seed
from paxos.sim.scenario import Scenario
from paxos.sim.trace import Trace
from tests.sim.mutants import InflatesAccepted, world_with

ROOT = Path(__file__).parents[2]
TESTING = (ROOT / "docs" / "testing.md").read_text()


class Page(HTMLParser):
    """Keeps the elements, their attributes and the text of the scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def violated() -> list[str]:
    """Return the trace of a run that breaks an invariant."""
    sink = io.StringIO()
    result = run_seed(0, trace=Trace(sink), world_class=world_with(network=InflatesAccepted))
    assert result.violation is not None
    return sink.getvalue().splitlines()


def test_the_page_of_a_seed_holds_its_whole_trace_and_needs_nothing_else(tmp_path: Path) -> None:
    page, trace = tmp_path / "run.html", tmp_path / "run.jsonl"
    assert main(["--seed", "3", "--html", str(page), "--trace", str(trace), "--quiet"]) == 0
    text = page.read_text()
    parsed = Page(text)
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert json.loads(parsed.scripts[0]) == events
    assert len(parsed.scripts) == 2
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not {"src", "href", "srcset", "action"} & set(attributes)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    assert "<title>Paxos, seed 3</title>" in text
    assert len(text) < len(trace.read_text()) + 60_000


def test_what_a_trace_holds_cannot_end_the_script() -> None:
    nasty = {
        "step": 1,
        "us": 1,
        "event": "violation",
        "node": 0,
        "text": "</script><script>alert(1)//<!-- \u2028",
    }
    text = diagram.page([json.dumps(nasty, ensure_ascii=False)], "a <b> & @TRACE@")
    parsed = Page(text)
    assert json.loads(parsed.scripts[0]) == [nasty]
    assert len(parsed.scripts) == 2
    assert "a &lt;b&gt; &amp; @TRACE@</title>" in text


def test_a_saved_trace_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"step":1,"us":5,"event":"heal","node":0}\n')
    assert convert([str(trace)]) == 0
    assert "bytes" in capsys.readouterr().out
    assert json.loads(Page((tmp_path / "t.html").read_text()).scripts[0])[0]["us"] == 5
    trace.write_text("nonsense\n")
    assert convert([str(trace)]) == 2
    assert convert([str(tmp_path / "missing")]) == 2


def test_a_scenario_draws_itself_when_asked(tmp_path: Path) -> None:
    code = (
        "from paxos.sim.scenario import Scenario\n"
        "cluster = Scenario(nodes=3)\n"
        "cluster.connect_only()\n"
        "cluster.wait_leader(within_ms=300)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PAXOS_SIM_HTML": str(tmp_path / "page"), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "I17" in done.stderr
    events = json.loads(Page((tmp_path / "page1.html").read_text()).scripts[0])
    assert events[-1]["event"] == "violation" and "I17" in events[-1]["text"]
    assert any(event["event"] == "drop" and event["why"] == "the link is cut" for event in events)


def documented() -> dict[str, set[str]]:
    """Return the table of events in docs/testing.md: event to its fields."""
    section = TESTING[TESTING.index("### Reading a trace") :]
    section = section[: section.index("\n### ", 5)]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section, re.MULTILINE)
    names = re.compile(r"`(\w+)`")
    return {event: set(names.findall(fields)) for events, fields in rows for event in names.findall(events)}


def test_every_event_and_field_is_in_the_documents() -> None:
    told = documented()
    named = set()
    for path in (ROOT / "paxos" / "sim").glob("*.py"):
        for pattern in (r'trace_event\(\s*"(\w+)"', r'_note\("(\w+)"', r'_look_at_delay\("(\w+)"'):
            named |= set(re.findall(pattern, path.read_text()))
    assert named <= set(told)
    code = "".join(path.read_text() for path in (ROOT / "paxos" / "sim").glob("*.py"))
    assert all(f'"{event}"' in code for event in told)
    seen: dict[str, set[str]] = {}
    for seed in (3, 7):
        sink = io.StringIO()
        run_seed(seed, trace=Trace(sink), steps_max=8_000)
        for line in sink.getvalue().splitlines():
            event = json.loads(line)
            assert event["step"] > 0 and event["us"] > 0
            seen.setdefault(event["event"], set()).update(event.keys() - {"step", "us", "event", "node"})
    assert len(seen) > 15
    for name, fields in seen.items():
        assert fields <= told[name], name


def test_messages_can_be_followed_from_their_sender_to_their_end() -> None:
    sink = io.StringIO()
    cluster = Scenario(nodes=3, trace=Trace(sink))
    cluster.settle()
    cluster.isolate(1)
    cluster.run(100)
    events = [json.loads(line) for line in sink.getvalue().splitlines()]
    sent = {event["id"]: event for event in events if event["event"] == "send"}
    ends = [event for event in events if event["event"] in ("receive", "drop")]
    assert len(sent) == max(sent) and ends
    for end in ends:
        start = sent[end["id"]]
        assert start["kind"] == end["kind"] and start["us"] <= end["us"]
    assert next(event["event"] for event in events if event["event"] in ("lead", "unlead")) == "lead"
    assert {event["slot"] for event in events if event["event"] == "chosen"} >= {1, 2, 3}


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ),
]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: the page is not tried out in a browser")
@pytest.mark.parametrize("lines", [violated, list], ids=["violation", "empty"])
def test_in_a_browser_the_page_draws_zooms_and_tells(lines, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page = tmp_path / "run.html"
    diagram.write(lines(), page, "a run")
    assert CHROMIUM is not None
    shown = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"{page.as_uri()}#selfcheck"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "selfcheck: ok" in shown.stdout, shown.stdout[-2000:] + shown.stderr[-2000:]
