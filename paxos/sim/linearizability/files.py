"""Histories in files: which format it is, and what Jepsen writes.

Three formats are read:

* ``json``: JSON lines, see `paxos.sim.linearizability.json_lines`.
* ``edn``: Jepsen's ``history.edn``, maps one after the other or in one vector:
  ``{:process 0, :type :invoke, :f :write, :value 3, :time 17}``; ``:key`` and ``:slot`` mean what they mean
  in JSON.
* ``log``: the lines of Jepsen's log, ``INFO  jepsen.util - 0 :invoke :write 3`` (with tabs), between
  whatever else was logged.

What the process ``nemesis`` reports as ``info``, its way to say what it broke, is no operation. With
``keyed=True`` values are ``[key value]``, as in Jepsen's independent tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paxos.sim.linearizability import edn, json_lines
from paxos.sim.linearizability.edn import Keyword, NotEdn, Symbol
from paxos.sim.linearizability.json_lines import event_of, is_of_nemesis
from paxos.sim.linearizability.operations import MISSING, Event, History, MalformedHistory

FORMATS = ("json", "edn", "log")
LOGGED = re.compile(
    r"(?:^|\s)(?P<process>:?[\w-]+)[ \t]+:(?P<type>invoke|ok|fail|info)"
    r"[ \t]+:(?P<f>[\w.+*!?-]+)(?:[ \t]+(?P<value>.*))?$"
)
LOOKS_LOGGED = re.compile(r"(?:^|\s):(?:invoke|ok|fail|info)(?:\s|$)")


def load(path: str | Path, *, format: str | None = None, keyed: bool = False) -> History:
    """Read a history from a file.

    Args:
        path: the file.
        format: one of ``FORMATS`` instead of what the file looks like.
        keyed: values are ``[key value]``.

    Raises:
        MalformedHistory: the file holds no history; says where and why.
        OSError: the file cannot be read.
    """
    source = str(path)
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MalformedHistory(source, line, f"no UTF-8: {error.reason}") from error
    return parse(text, source, format=format, keyed=keyed)


def parse(text: str, source: str = "history", *, format: str | None = None, keyed: bool = False) -> History:
    """Read a history from text; see `load`."""
    decode = {"json": json_lines.decode, "edn": decode_edn, "log": decode_log}[format or guess(text)]
    events = list(decode(text.replace("\r\n", "\n"), source))
    if not events:
        raise MalformedHistory(source, 0, "holds no operation")
    if keyed:
        events = [keyed_event(event, source) for event in events]
    return History.of(events, source)


def guess(text: str) -> str:
    """Return what the text looks like: a line of JSON, EDN, or a log."""
    start = text.lstrip()
    if re.match(r'\{\s*("|\})', start):
        return "json"
    return "edn" if start[:1] in ("{", "[", "(", ";") or start.startswith("#jepsen") else "log"


def keyed_event(event: Event, source: str) -> Event:
    """Take the key out of a value ``[key value]``."""
    value = event.value
    if event.type in ("info", "fail"):
        return event._replace(value=MISSING)
    if not isinstance(value, tuple) or len(value) != 2:
        raise MalformedHistory(source, event.line, f"the value should be [key value], and is {value!r}")
    return event._replace(key=value[0], value=value[1])


def plain(value: Any) -> Any:
    """Return a name of EDN as a string."""
    return value.name if isinstance(value, Keyword | Symbol) else value


def decode_edn(text: str, source: str) -> Iterator[Event]:
    """Yield the events of a history in EDN."""
    try:
        for line, form in edn.read_all(text):
            yield from _edn_event(form, line, source)
    except NotEdn as error:
        raise MalformedHistory(source, error.line, f"no EDN: {error}") from error


def _edn_event(item: Any, line: int, source: str) -> Iterator[Event]:
    if not isinstance(item, dict):
        raise MalformedHistory(source, line, f"expected a map, found {item!r:.40}")
    fields = {plain(name): value for name, value in item.items()}
    for name in ("type", "process", "f"):
        fields[name] = plain(fields.get(name))
    if is_of_nemesis(fields["process"], fields["type"]):
        return
    try:
        yield event_of(fields, line)
    except (ValueError, TypeError) as error:
        raise MalformedHistory(source, line, f"no event: {error}") from error


def decode_log(text: str, source: str) -> Iterator[Event]:
    """Yield the events that a log tells of; a line that seems to tell of one and does not is an error."""
    for number, line in enumerate(text.split("\n"), start=1):
        found = LOGGED.search(line)
        if found is None:
            if LOOKS_LOGGED.search(line):
                raise MalformedHistory(source, number, "looks like an operation: process :type :f value")
            continue
        process: int | str = found["process"].removeprefix(":")
        if is_of_nemesis(process, found["type"]):
            continue
        if found["process"].isdecimal():
            process = int(process)
        fields: dict[str, Any] = {"type": found["type"], "process": process, "f": found["f"]}
        try:
            if found["value"] and fields["type"] in ("invoke", "ok"):
                fields["value"] = edn.read_one(found["value"])
            yield event_of(fields, number)
        except (ValueError, TypeError) as error:
            raise MalformedHistory(source, number, f"no event: {error}") from error
