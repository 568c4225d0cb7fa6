"""Histories as JSON lines: one event per line.

.. code-block:: json

    {"type": "invoke", "process": 0, "f": "put", "key": "x", "value": "a", "time": 1}
    {"type": "ok", "process": 0, "f": "put", "key": "x", "time": 2, "slot": 17}

``type`` is invoke, ok, fail or info; ``process`` an integer or a string; ``f`` the name of the operation;
``value`` the argument of an invocation or the result of an ok; ``key`` the object; ``time`` a number, of one
clock, for every event or for none; ``slot`` where in the log it took effect. The last four may be absent, and
other fields are not looked at. Bytes are written as ``{"bytes": "<hexadecimal>"}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from paxos.sim.linearizability.operations import MISSING, TYPES, Event, MalformedHistory, freeze


def is_of_nemesis(process: Any, kind: Any) -> bool:
    """Return True for what Jepsen's process that breaks things reports: those events are no operations."""
    return bool(process == "nemesis" and kind == "info")


def encode(event: Event) -> str:
    """Return an event as a line of JSON, without the line feed."""
    fields: dict[str, Any] = {"type": event.type, "process": event.process, "f": event.f}
    if event.key is not None:
        fields["key"] = event.key
    if event.value is not MISSING:
        fields["value"] = event.value
    if event.time is not None:
        fields["time"] = event.time
    if event.slot is not None:
        fields["slot"] = event.slot
    return json.dumps(fields, default=_encode_special)


def _encode_special(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise TypeError(f"{value!r} has no form in JSON")


def decode(text: str, source: str) -> Iterator[Event]:
    """Yield the events of a file.

    Raises:
        MalformedHistory: at the first line that is none.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line, object_pairs_hook=_object, parse_constant=_refuse_constant)
            event = event_of(fields, number)
        except RecursionError as error:
            raise MalformedHistory(source, number, "nested too deeply") from error
        except (ValueError, TypeError) as error:
            raise MalformedHistory(source, number, f"no event: {error}") from error
        if not is_of_nemesis(event.process, event.type):
            yield event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value for a history")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice in one object")
    if list(fields) == ["bytes"] and isinstance(fields["bytes"], str):
        return bytes.fromhex(fields["bytes"])
    return fields


def event_of(fields: Any, line: int) -> Event:
    """Return the event that an object of JSON or EDN means, with plain strings as names.

    Raises:
        ValueError: something is missing or of the wrong type.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, found {type(fields).__name__}")
    for name in ("type", "process", "f"):
        if name not in fields:
            raise ValueError(f"{name} is missing")
    kind, process, f = fields["type"], fields["process"], fields["f"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"type is {kind!r}, expected one of {', '.join(TYPES)}")
    if isinstance(process, bool) or not isinstance(process, int | str):
        raise ValueError(f"process is {process!r}, expected an integer or a string")
    if not isinstance(f, str):
        raise ValueError(f"f is {f!r}, expected the name of an operation")
    time, slot = fields.get("time"), fields.get("slot")
    if time is not None and (
        isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time)
    ):
        raise ValueError(f"time is {time!r}, expected a number")
    if slot is not None and (isinstance(slot, bool) or not isinstance(slot, int)):
        raise ValueError(f"slot is {slot!r}, expected an integer")
    value = freeze(fields["value"]) if "value" in fields else MISSING
    return Event(kind, process, f, value, freeze(fields.get("key")), time, slot, line)
