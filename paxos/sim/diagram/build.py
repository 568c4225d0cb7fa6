"""Builds the page: the template, the style, the script and the events of a trace, in one file."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

EVENTS_MAX = 400_000
"""Events in one page, the last ones; a browser holds no more with comfort."""


def _part(name: str) -> str:
    return (resources.files("paxos.sim.diagram") / name).read_text(encoding="utf-8")


def embedded(lines: Iterable[str]) -> str:
    """Return JSON lines as one JSON array that can stand inside a ``script`` element.

    Raises:
        ValueError: a line is no JSON object.
    """
    kept = [line for line in (line.strip() for line in lines) if line][-EVENTS_MAX:]
    for line in (kept[0], kept[-1]) if kept else ():
        if not isinstance(json.loads(line), dict):
            raise ValueError(f"not a line of a trace: {line[:80]}")
    # In JSON these stand in strings only; escaped they cannot end the element or begin a comment.
    text = ",\n".join(kept).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"[{text}]"


def page(lines: Iterable[str], title: str) -> str:
    """Return the page for the JSON lines of a trace."""
    parts = {
        "@TITLE@": html.escape(title),
        "@CSS@": _part("diagram.css").strip(),
        "@JS@": _part("diagram.js").strip(),
        "@TRACE@": embedded(lines),
    }
    # In one pass, so that nothing that is put in is looked at again.
    return re.sub("@[A-Z]+@", lambda place: parts[place[0]], _part("page.tmpl"))


def write(lines: Iterable[str], path: str | os.PathLike[str], title: str) -> int:
    """Write the page to ``path``; return its size in bytes."""
    text = page(lines, title).encode("utf-8")
    Path(path).write_bytes(text)
    return len(text)
