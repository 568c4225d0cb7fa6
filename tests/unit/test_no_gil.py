"""Nothing that the reactor's thread can reach takes the GIL.

One frame handled under the GIL on that thread stops every commit for as long as the host program holds it.
So the sources of every module that the reactor cimports, directly or not, are read, and the C generated
from them where it lies beside them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import paxos

CORE = Path(paxos.__file__).parent / "_core"


def reachable(start: str) -> list[str]:
    """Names of the core's modules that ``start`` cimports, directly or not."""
    found: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for suffix in (".pxd", ".pyx"):
            path = CORE / (name + suffix)
            if path.exists():
                todo += re.findall(r"^from paxos\._core\.(\w+) cimport", path.read_text(), re.MULTILINE)
    return sorted(found)


MODULES = sorted(set(reachable("reactor")) | set(reachable("load")))


def code_lines(name: str) -> list[tuple[str, int, str]]:
    """The lines of a module's sources without comments, each logical cdef on one line."""
    lines = []
    for suffix in (".pxd", ".pyx"):
        path = CORE / (name + suffix)
        if not path.exists():
            continue
        pending = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = pending + line.split("#")[0].rstrip()
            if text.lstrip().startswith(("cdef ", "cpdef ")) and text.count("(") > text.count(")"):
                pending = text + " "
                continue
            pending = ""
            lines.append((path.name, number, text))
    return lines


@pytest.mark.skipif(not (CORE / "reactor.pyx").exists(), reason="installed without the sources of the core")
def test_the_search_reaches_what_the_reactor_uses() -> None:
    assert {"batch", "codec", "effects", "engine", "handover", "links", "reactor", "wakeup", "wal"} <= set(
        MODULES
    )


@pytest.mark.parametrize("name", MODULES)
def test_x2_no_source_takes_the_gil_or_lets_an_exception_out_of_nogil_code(name: str) -> None:
    for file, number, line in code_lines(name):
        assert not re.search(r"\bwith\s+gil\b", line), f"{file}:{number} takes the GIL: {line}"
        if re.match(r"\s*c(p)?def\b", line) and re.search(r"\bnogil\b", line) and "extern" not in line:
            assert "noexcept" in line, f"{file}:{number}: nogil without noexcept checks for errors: {line}"


@pytest.mark.parametrize("name", [name for name in MODULES if (CORE / f"{name}.pyx").exists()])
def test_x2_no_generated_function_takes_the_gil(name: str) -> None:
    path = CORE / f"{name}.c"
    if not path.exists():
        pytest.skip(f"{name}.c is not beside its source")
    text = path.read_text(errors="replace")
    offenders = []
    for match in re.finditer(r"^static [^\n;{]*\b(__pyx_f_\w+)\([^;{]*\) \{$", text, re.MULTILINE):
        body = text[match.end() : text.index("\n}", match.end())]
        if "PyGILState_Ensure" in body:
            offenders.append(match[1])
    assert offenders == []
