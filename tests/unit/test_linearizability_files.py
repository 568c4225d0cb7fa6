"""Histories in files: the three formats, hostile input, and the command with its exit status."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos.sim.linearizability import MISSING, Event, History, MalformedHistory, Operation, check, load, parse
from paxos.sim.linearizability.__main__ import main
from paxos.sim.linearizability.edn import DEPTH_MAX, Keyword, NotEdn, Symbol, read_all, read_one
from paxos.sim.linearizability.files import guess
from paxos.sim.linearizability.json_lines import decode, encode
from paxos.sim.linearizability.models import CasRegister, KeyValue, Mutex, Register
from tests.unit import linearizability_kit as kit

ROOT = Path(__file__).parents[2]

GOOD_LOG = """\
INFO  jepsen.core - Running test
INFO  jepsen.util - 0\t:invoke\t:write\t3
INFO  jepsen.util - 1\t:invoke\t:read\tnil
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 0\t:ok\t:write\t3
INFO  jepsen.util - 1\t:ok\t:read\t3
INFO  jepsen.util - 1\t:invoke\t:cas\t[3 4]
INFO  jepsen.util - 1\t:fail\t:cas\t[3 4]
INFO  jepsen.util - 2\t:invoke\t:write\t4
INFO  jepsen.util - 2\t:info\t:write\t:timed-out
INFO [2026-01-01 10:00:00,000] jepsen worker 1 - jepsen.util 1 :invoke :read nil
INFO [2026-01-01 10:00:00,001] jepsen worker 1 - jepsen.util 1 :ok :read 4
"""

GOOD_EDN = """\
; a comment
{:process 0, :type :invoke, :f :write, :value 3, :time 10, :index 0}
{:process :nemesis, :type :info, :f :start, :value nil, :time 11}
#jepsen.history.Op{:process 0, :type :ok, :f :write, :value 3, :time 12, :index 1}
{:process 1, :type :invoke, :f :read, :value nil, :time 13} #_{:process 9}
{:process 1, :type :ok, :f :read, :value 3, :time 14}
"""


READ_OF = '{"type": "invoke", "process": 1, "f": "read", "value": '


def operations(text: str, **options: Any) -> list[str]:
    """Return the operations of a history as text, with who and whether they are known."""
    return [f"{operation.process}: {operation}" for operation in parse(text, **options).operations]


# --- JSON lines ---------------------------------------------------------------------------------------------


def test_json_lines_say_what_they_are_documented_to_say() -> None:
    text = """
    {"type": "invoke", "process": 0, "f": "put", "key": "x", "value": {"bytes": "00ff"}, "time": 1, "node": "n1"}

    {"type": "ok", "process": 0, "f": "put", "key": "x", "time": 2, "slot": 17}
    """
    (operation,) = parse(text).operations
    assert operation == Operation(0, "put", b"\x00\xff", MISSING, "x", 1, 2, slot=17, line=2)


def test_every_event_survives_being_written() -> None:
    for kind in kit.KINDS:
        life = kit.live(random.Random(kind), kind, clients=4, operations=60, keys=3)
        text = "\n".join(map(encode, life.events))
        read_back = [event._replace(line=0) for event in decode(text, "x")]
        assert read_back == life.events


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no event"),
        ("[]", "expected an object, found list"),
        ('{"type": "invoke", "process": 1}', "f is missing"),
        ('{"type": "invoke", "f": "read"}', "process is missing"),
        ('{"type": "done", "process": 1, "f": "read"}', "type is 'done', expected one of invoke, ok, fail, info"),
        ('{"type": ["ok"], "process": 1, "f": "read"}', "type is"),
        ('{"type": "invoke", "process": 1.5, "f": "read"}', "process is 1.5, expected an integer or a string"),
        ('{"type": "invoke", "process": true, "f": "read"}', "process is True"),
        ('{"type": "invoke", "process": 1, "f": 2}', "f is 2"),
        ('{"type": "invoke", "process": 1, "f": "r", "time": "noon"}', "time is 'noon', expected a number"),
        ('{"type": "invoke", "process": 1, "f": "r", "time": 1e999}', "time is inf"),
        ('{"type": "invoke", "process": 1, "f": "r", "slot": 1.0}', "slot is 1.0, expected an integer"),
        ('{"type": "invoke", "process": 1, "f": "r", "value": NaN}', "NaN is no value"),
        ('{"type": "invoke", "type": "ok", "process": 1, "f": "r"}', "a name stands twice"),
        ('{"type": "invoke", "process": 1, "f": "r", "value": {"bytes": "xyz"}}', "no event"),
        (READ_OF + "[" * 100_000 + "1" + "]" * 100_000 + "}", "too deeply"),
        (READ_OF + "9" * 5000 + "}", "no event"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_is_refused_with_its_number(line: str, reason: str) -> None:
    text = '{"type": "invoke", "process": 0, "f": "read"}\n\n' + line
    with pytest.raises(MalformedHistory, match=f"^h.json:3: .*{reason}"):
        parse(text, "h.json", format="json")


# --- EDN ----------------------------------------------------------------------------------------------------


def test_edn_is_read_as_maps_or_as_one_vector() -> None:
    expected = ["0: write 3", "1: read -> 3"]
    assert operations(GOOD_EDN) == expected
    assert operations(f"[{GOOD_EDN}]") == expected
    assert [operation.line for operation in parse(f"[\n{GOOD_EDN}]").operations] == [3, 6]


def test_edn_of_a_key_value_store_has_keys() -> None:
    text = """{:process 0, :type :invoke, :f :append, :key "3", :value "x 0 0 y"}
    {:process 0, :type :ok, :f :append, :key "3", :value "x 0 0 y"}
    {:process 0, :type :invoke, :f :get, :key "3", :value nil}
    {:process 0, :type :ok, :f :get, :key "3", :value "x 0 0 y"}"""
    assert check(parse(text), KeyValue())
    assert parse(text).operations[1].key == "3"


def test_values_of_independent_tests_are_pairs_of_key_and_value() -> None:
    text = """{:process 0, :type :invoke, :f :write, :value [7 1]}
    {:process 0, :type :ok, :f :write, :value [7 1]}
    {:process 1, :type :invoke, :f :read, :value [7 nil]}
    {:process 1, :type :ok, :f :read, :value [7 1]}
    {:process 1, :type :invoke, :f :read, :value [8 nil]}
    {:process 1, :type :ok, :f :read, :value [8 nil]}
    {:process 1, :type :invoke, :f :cas, :value [8 [1 2]]}
    {:process 1, :type :info, :f :cas, :value nil, :error :timeout}"""
    history = parse(text, keyed=True)
    assert [(operation.key, str(operation)) for operation in history.operations] == [
        (7, "write 1"), (7, "read -> 1"), (8, "read -> nil"), (8, "cas [1 2] -> ?"),
    ]  # fmt: skip
    assert check(history, CasRegister()).keys == 2
    with pytest.raises(MalformedHistory, match=r"^history:1: the value should be \[key value\]"):
        parse(GOOD_LOG.split("\n", 1)[1], keyed=True)


def test_edn_values() -> None:
    text = r"""nil true false 17 -3N +4 1.5 2M 1e3 "a\n\"é" \a \newline \u0041 :k :a/b sym
    (1) {1 [2]} #{3} #inst "x" #_ 9"""
    assert [value for _, value in read_all(text)] == [
        None, True, False, 17, -3, 4, 1.5, 2.0, 1000.0, 'a\n"é', "a", "\n", "A", Keyword("k"), Keyword("a/b"),
        Symbol("sym"), 1, {1: [2]}, frozenset({3}), "x",
    ]  # fmt: skip
    assert [repr(Keyword("k")), repr(Symbol("s"))] == [":k", "s"]
    assert read_one("[1 [2]] :rest") == [1, [2]]
    assert Keyword("a") != "a"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("{:process 0\n:type", 1, "'{' is not closed"),
        ("\n[[1 2}", 2, "'[' of line 2 is closed by '}'"),
        ("]", 1, "']' stands where a value should"),
        ("{1}", 1, "a key without a value"),
        ("{1 2 1 3}", 1, "a key stands twice"),
        ("{{1 2} 3}", 1, "no key"),
        ("#{{}}", 1, "no key"),
        ('\n"abc', 2, "cannot read"),
        (r'"\q"', 1, "means nothing in a string"),
        (r"\bogus", 1, "no character is called 'bogus'"),
        ("##NaN", 1, "'##NaN' is no value"),
        ("1a", 1, "'1a' is no value"),
        (":", 1, "':' is no value"),
        ("#tag", 1, "the text ends after '#tag'"),
        ("#_", 1, "the text ends after"),
        ("[[1 #_]]", 1, "stands where a value should"),
        ("9" * 5000, 1, "digits"),
        ("[" * (DEPTH_MAX + 2), 1, "nested more than 100 deep"),
        ("#a " * (DEPTH_MAX + 2), 1, "nested more than 100 deep"),
    ],
)
def test_what_is_not_edn_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(NotEdn) as caught:
        list(read_all(text))
    assert (caught.value.line, reason in str(caught.value)) == (line, True), str(caught.value)
    with pytest.raises(MalformedHistory, match=f"^h.edn:{line}: no EDN: "):
        parse(text, "h.edn", format="edn")


def test_edn_that_is_no_event_is_refused() -> None:
    for text, reason in [
        ("17", "expected a map, found 17"),
        ("{:type :invoke, :f :read}", "process is None"),
        ("{:type :invoke, :process 0, :f [1]}", "f is"),
        ("{:type :invoke, :process 0, :f :read, :time :noon}", "time is :noon"),
    ]:
        with pytest.raises(MalformedHistory, match=f"^history:2: .*{reason}"):
            parse("\n" + text, format="edn")


# --- logs ---------------------------------------------------------------------------------------------------


def test_a_log_is_read_between_whatever_else_was_logged() -> None:
    assert operations(GOOD_LOG) == ["0: write 3", "1: read -> 3", "2: write 4 -> ?", "1: read -> 4"]
    assert check(parse(GOOD_LOG), CasRegister())
    assert not check(parse(GOOD_LOG.replace(":ok :read 4", ":ok :read 5")), CasRegister())


def test_a_line_of_a_log_that_is_damaged_is_not_passed_over() -> None:
    for damaged in ("0 :ok", ":ok :read 3", "0 :invoke read", "0 :invoke :cas [1", "0 :invoke :read #"):
        with pytest.raises(MalformedHistory, match="^history:13: "):
            parse(GOOD_LOG + damaged)


def test_failed_reads_need_no_value() -> None:
    log = "0 :invoke :read nil\n0 :fail :read :timed-out\n1 :invoke :read nil\n1 :info :read :timed-out\n"
    assert check(parse(log), Register()).operations == 0
    edn = "{:process 0 :type :invoke :f :read :value [1 nil]} {:process 0 :type :fail :f :read :error :net}"
    assert len(parse(edn, keyed=True).failed) == 1
    lines = '{"type":"invoke","process":0,"f":"read"}\n{"type":"fail","process":0,"f":"read"}'
    assert check(parse(lines), Register())


def test_only_what_the_nemesis_reports_is_passed_over() -> None:
    report = "{:process :nemesis :type :info :f :kill :value [1 2]}"
    event = "{:process :nemesis :type :invoke :f :write :value 1}"
    assert len(parse(f"{report} {event} {report}")) == 1
    assert len(parse(":nemesis :info :kill nil\n:nemesis :invoke :write 1\n")) == 1


def test_a_mutex_in_a_log() -> None:
    text = "0 :invoke :acquire nil\n0 :ok :acquire nil\n1 :invoke :acquire nil\n1 :ok :acquire nil\n"
    assert check(parse(text.rsplit("\n", 3)[0] + "\n"), Mutex())
    assert not check(parse(text), Mutex())


# --- any format ---------------------------------------------------------------------------------------------


def test_the_format_is_seen_from_the_text() -> None:
    assert guess('\n {"type": 1}') == "json"
    assert [guess(text) for text in ("{:type 1}", "[{:a 1}]", "; c", "#jepsen.history.Op{}")] == ["edn"] * 4
    assert guess(GOOD_LOG) == "log"


@pytest.mark.parametrize("text", ["", "\n\n", "just a log\nof something else\n", "[]"])
def test_a_file_without_operations_is_no_history(text: str) -> None:
    with pytest.raises(MalformedHistory, match="^history: holds no operation"):
        parse(text)


def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "h.log"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD_LOG.replace("\n", "\r\n").encode())
    assert load(path).operations == parse(GOOD_LOG).operations


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["json", "edn", "log", None]))
def test_any_bytes_are_a_history_or_one_documented_error(data: bytes, format: str | None) -> None:
    try:
        history = parse(data.decode("utf-8", "replace"), format=format)
    except MalformedHistory as error:
        assert error.line >= 0 and str(error).startswith("history")
    else:
        assert isinstance(history, History)


PIECES = [
    "{", "}", "[", "]", "(", "#{", ":type", ":process", ":f", ":invoke", ":ok", ":info", ":read", ":write", ":value",
    "0", "1", "nil", '"x"', "\\", '"', "#_", "#tag", ";", "\n", " ", "\t", ":", "##Inf", '{"type":', '"invoke"', ",",
    '"process":0', '"f":"read"', '"time":', "NaN", "1e999", "\ud800".encode("utf-8", "replace").decode(), "\x00",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60), st.sampled_from(["json", "edn", "log", None]))
def test_pieces_of_histories_are_a_history_or_one_documented_error(
    pieces: list[str], format: str | None
) -> None:
    try:
        history = parse(" ".join(pieces), format=format)
        check(history, Register(), timeout_s=5)
    except MalformedHistory as error:
        assert str(error).startswith("history")


# --- the command --------------------------------------------------------------------------------------------


def command(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "paxos.sim.linearizability", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def histories(tmp_path: Path) -> dict[str, Path]:
    """Return files with a good, a bad, an undecidable and an unreadable history."""
    crowd = [Event("invoke", n, "write", n % 2) for n in range(11)]
    crowd += [Event("ok", n, "write") for n in range(11)]
    for value in (0, 1):
        crowd += [Event("invoke", "r", "read"), Event("ok", "r", "read", value)]
    texts = {
        "good": GOOD_LOG,
        "bad": GOOD_LOG + "0 :invoke :read nil\n0 :ok :read 9\n",
        "hard": "\n".join(map(encode, crowd)),
        "none": GOOD_LOG + "7 :ok :read 3\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in texts}


def test_the_exit_status_is_0_1_or_2(histories: dict[str, Path]) -> None:
    good = command("--model", "cas-register", histories["good"])
    assert good.returncode == 0 and "linearizable: 4 operations" in good.stdout and not good.stderr
    bad = command("--model", "cas-register", histories["good"], histories["bad"])
    assert bad.returncode == 1
    assert "not linearizable" in bad.stdout and "read -> 9 (line 13): refused" in bad.stdout
    none = command("--model", "cas-register", histories["none"], histories["good"])
    assert none.returncode == 2
    assert none.stderr.strip() == (
        f"{histories['none']}:13: process 7 completes an operation that it did not invoke"
    )
    assert "Traceback" not in none.stderr + bad.stderr


def test_the_status_of_several_files(histories: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    def status(*names: str) -> int:
        files = [str(histories[name]) for name in names]
        return main(["--model", "cas-register", "--configurations", "1500", "--quiet", *files])

    assert status("good", "good") == 0
    assert status("hard") == 2
    assert "inconclusive" in capsys.readouterr().out
    assert status("good", "hard") == status("good", "none") == 2
    assert status("hard", "bad", "none") == 1, "one that is wrong is wrong"
    assert main(["--model", "register", str(histories["good"].parent / "absent")]) == 2
    assert main(["--model", "register", str(histories["good"].parent)]) == 2
    assert main(["--model", "mutex", str(histories["good"])]) == 2
    assert "mutex knows no operation 'write', only acquire, release" in capsys.readouterr().err


def test_one_object_for_each_file(histories: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(histories[name]) for name in ("good", "bad", "none")]
    assert main(["--model", "cas-register", "--json", *files]) == 1
    good, bad, none = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["verdict"], bad["verdict"], none["verdict"]) == (
        "linearizable",
        "not linearizable",
        "unreadable",
    )
    found = bad["counterexample"]
    assert found["stuck_at"] == 13 and found["operations"][-1]["result"] == 9
    assert found["refused"] == [{"line": 13, "reason": f"refused, the state is {found['state']}"}]
    assert none["reason"].endswith("that it did not invoke")


def test_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h"
    path.write_text(
        '{"type":"invoke","process":0,"f":"read"}\n{"type":"ok","process":0,"f":"read","value":0}\n'
    )
    assert main(["--model", "register", str(path)]) == 1
    assert main(["--model", "register", "--initial", "0", str(path)]) == 0
    assert main(["--model", "paxos.sim.linearizability:Register", "--initial", "0", str(path)]) == 0
    assert main(["--model", "register", "--format", "edn", str(path)]) == 2
    assert "no EDN" in capsys.readouterr().err
    for wrong in (
        ["--model", "nothing"], ["--model", "os:nothing"], ["--model", "no.such:Thing"], ["--timeout", "0"],
        ["--initial", "{"], ["--model", "mutex", "--initial", "1"], [],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main([*wrong, *([] if "--model" in wrong or not wrong else ["--model", "register"]), str(path)])
        assert caught.value.code == 2


def test_the_standard_input_and_help() -> None:
    result = command("--model", "cas-register", "-", stdin=GOOD_LOG)
    assert result.returncode == 0 and result.stdout.startswith("-: linearizable")
    text = " ".join(command("--help").stdout.split())
    assert "Exit status: 0 all are linearizable; 1 one is not; 2 one is undecided or cannot be read." in text
    for word in ("list-append", "module:Class", "--timeout", "--format", "--json", "--keyed"):
        assert word in text


def test_the_example_of_the_documents_is_true(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    section = text[text.index("## Checking a history") :]
    program, said = re.findall(r"^```(?:python|text)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[:2]
    (tmp_path / "example.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = functools.partial(
        subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run([sys.executable, "example.py"]).stdout == "Verdict.NOT_LINEARIZABLE\n"
    words = [sys.executable, "-m", "paxos.sim.linearizability", "--model", "key-value", "history.jsonl"]
    result = run(words)
    assert result.returncode == 1
    assert re.sub(r"0\.\d+ s", "0.000 s", result.stdout) == said
