"""The mutants as they are written down: what each breaks, where, and which test must notice."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RULE = re.compile(r"(?:h|I|P|D|K|S|R|L|M|N|C|Y|Z|W|X|G|F)[1-9]\d?")


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in one file; ``old`` must be there exactly once."""

    file: str
    old: str
    new: str

    def matches(self, root: Path = ROOT) -> int:
        """Return how often ``old`` occurs."""
        path = root / self.file
        return path.read_text().count(self.old) if path.is_file() else 0

    def apply(self, root: Path) -> None:
        """Write the changed file.

        Raises:
            ValueError: ``old`` is not there exactly once.
        """
        if self.matches(root) != 1:
            raise ValueError(f"{self.file} has {self.matches(root)} times, not once:\n{self.old}")
        path = root / self.file
        path.write_text(path.read_text().replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken rule.

    Attributes:
        id: a short name.
        rules: ids of the rules, histories or bugs that it brings about.
        breaks: what the program does wrong with it, in one line.
        edits: the patch.
        tests: node ids of the named tests that must fail.
        seeds: random runs of the simulator that look for it; 0 where the simulator runs other code.
    """

    id: str
    rules: tuple[str, ...]
    breaks: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    seeds: int

    @property
    def is_compiled(self) -> bool:
        """True if the core must be built again."""
        return any(edit.file.startswith("_core/") for edit in self.edits)


def of_table(table: dict[str, Any]) -> Mutant:
    """Return the mutant that one table of a file describes.

    Raises:
        ValueError: a key is missing or unknown.
    """
    known = {"id", "rules", "breaks", "file", "old", "new", "also", "tests", "seeds"}
    missing = {"id", "rules", "breaks", "file", "old", "new", "tests"} - set(table)
    if missing or set(table) - known:
        raise ValueError(f"{table.get('id')}: missing {missing}, unknown {set(table) - known}")
    edits = [Edit(table["file"], table["old"], table["new"])]
    edits += [
        Edit(more.get("file", table["file"]), more["old"], more["new"]) for more in table.get("also", [])
    ]
    return Mutant(
        id=table["id"],
        rules=tuple(table["rules"]),
        breaks=table["breaks"],
        edits=tuple(edits),
        tests=tuple(table["tests"]),
        seeds=table.get("seeds", 300),
    )


def load(directory: Path = ROOT / "tests" / "mutants") -> list[Mutant]:
    """Return every mutant, in the order of the files and of their tables."""
    return [
        of_table(table)
        for path in sorted(directory.glob("*.toml"))
        for table in tomllib.loads(path.read_text())["mutant"]
    ]


def functions_of(path: Path) -> set[str]:
    """Return the names of the test functions of a file, those in classes included."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def exists(node_id: str, root: Path = ROOT) -> bool:
    """Tell whether the file of a node id has the function that it names."""
    name, _, rest = node_id.partition("::")
    path = root / name
    return path.is_file() and rest.split("::")[-1].partition("[")[0] in functions_of(path)
