"""The repository's own rules: who may import whom, what is exported, how long a file may be."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "_core"
PACKAGE = ROOT / "paxos"
COMPILED = sorted(path.stem for path in CORE.glob("*.pyx"))
STUBS = sorted(path.stem for path in CORE.glob("*.pyi"))

# A module imports from its own layer and from those below it.
LAYERS = {
    0: ["errors", "types", "status", "validation"],
    1: ["messages", "_core", "failpoints"],
    2: ["quorum", "election", "membership", "acceptor", "proposer", "learner"],
    3: ["engine", "control"],
    4: ["storage", "transport", "sim"],
    5: [
        "replica",
        "node",
        "opening",
        "repairing",
        "applying",
        "reading",
        "advice",
        "signals",
        "subscribe",
        "futures",
        "state_machine",
        "aio",
        "cluster",
    ],
    6: ["recipes", "cli"],
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
ROLES = {"acceptor", "proposer", "learner"}
PROTOCOL = {*LAYERS[2], *LAYERS[3]}
NO_IO = {"time", "random", "threading", "asyncio", "socket", "os", "zmq", "lmdb", "logging"}

LINES_MAX = {".py": 600, ".pyx": 500, ".pxd": 450, ".pyi": 600}
FUNCTION_LINES_MAX = 70
# Modules that wait to be split by idea. The numbers may only go down.
LONG = {"batch.pyx": 600, "handover.pyx": 570}


def python_files() -> list[Path]:
    """Return the Python files of the package, without what lies behind the link to ``_core``."""
    return sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "_core" not in path.parents)


def part_of(path: Path) -> str:
    """Return the name of the part of the package that a file belongs to: its top-level module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST, *, with_type_checking: bool = True) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports, wherever the statement stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which layer is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            if with_type_checking:
                yield from imports(node)
        else:
            yield from imports(node, with_type_checking=with_type_checking)


def ours(names: Iterator[str]) -> set[str]:
    """Return which parts of the package are among the imported names."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "paxos":
            found.add(parts[1] if len(parts) > 1 else "")
    return found


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_layers_only_import_from_below(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # the public face gathers from everywhere
    part = part_of(path)
    assert part in LAYER_OF, f"say in LAYERS to which layer paxos.{part} belongs"
    for imported in ours(imports(ast.parse(path.read_text()))):
        if imported not in LAYER_OF:  # `from paxos import Replica`: the public face, for the outermost layer
            assert LAYER_OF[part] == 6, f"{path.name} imports from paxos itself; name the module"
        else:
            assert LAYER_OF[imported] <= LAYER_OF[part], f"paxos.{part} must not import paxos.{imported}"


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_protocol_files_do_no_io_and_roles_do_not_know_each_other(path: Path) -> None:
    part = part_of(path)
    if part not in PROTOCOL:
        return
    tree = ast.parse(path.read_text())
    used = {name.split(".")[0] for name in imports(tree, with_type_checking=False)}
    assert not used & NO_IO, "time is an argument and randomness is injected"
    if part in ROLES:
        assert not ours(imports(tree)) & (ROLES - {part})


@pytest.mark.parametrize("path", sorted(CORE.glob("*.p[yx][xd]")), ids=lambda path: path.name)
def test_the_compiled_core_imports_only_itself_and_the_vocabulary(path: Path) -> None:
    text = path.read_text()
    found = set(re.findall(r"^\s*(?:from\s+paxos\.|c?import\s+paxos\.)([\w.]+)", text, re.MULTILINE))
    below = {name for name in found if name.split(".")[0] != "_core"}
    assert below <= {*LAYERS[0], *LAYERS[1]}, f"{path.name} imports {below}"
    assert not re.search(r"^\s*from\s+\.", text, re.MULTILINE), "cimports are absolute"
    if path.stem in ROLES:
        assert not found & {f"_core.{role}" for role in ROLES - {path.stem}}


def test_every_compiled_module_has_a_stub() -> None:
    assert STUBS == COMPILED
    assert {path.stem for path in CORE.glob("*.pxd")} - set(COMPILED) <= {"wal_format"}


def stub_names(path: Path) -> set[str]:
    """Return the public names that a stub declares."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_module_exports_exactly_what_its_stub_says(name: str) -> None:
    module = importlib.import_module(f"paxos._core.{name}")
    exported = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", module.__name__) == module.__name__
    }
    assert exported == stub_names(CORE / f"{name}.pyi")


def source_files() -> list[Path]:
    """Return what people read: the sources of the package, the core, the tools, the examples."""
    folders = [PACKAGE, ROOT / "examples", ROOT / "benchmarks", ROOT / "tools"]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    files = [path for path in files if PACKAGE / "_core" not in path.parents]
    return sorted({*files, *CORE.glob("*.p[yx][xdi]")})


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_a_reader(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= LONG.get(path.name, LINES_MAX[path.suffix]), f"{lines} lines; split it by idea"
    if path.suffix != ".py":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", sorted(CORE.glob("*.pyx")), ids=lambda path: path.name)
def test_directives_live_in_setup_py_only(path: Path) -> None:
    head = path.read_text().split('"""')[0]
    assert not re.search(r"#\s*(cython|distutils)\s*:", head)


def test_the_link_to_the_core_is_relative() -> None:
    link = PACKAGE / "_core"
    if link.is_symlink():  # an unpacked source distribution has a real directory here
        assert os.readlink(link) == "../_core"


def readme_blocks() -> list[str]:
    """Return the Python examples of the README."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(readme_blocks())))
def test_the_readme_examples_run(number: int, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(readme_blocks()[number])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


def all_modules() -> list[str]:
    """Return every importable module of the package, compiled ones included."""
    modules = [name_of(path) for path in python_files() if path.name != "__main__.py"]
    return sorted(modules + [f"paxos._core.{name}" for name in COMPILED])


@pytest.mark.parametrize("name", all_modules())
def test_docstring_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    assert module.__doc__ or name == "paxos" or not vars(module).get("__file__"), f"{name} has no docstring"
    assert doctest.testmod(module).failed == 0


def test_the_changelog_says_what_changes_next() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_generated_is_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    generated = [name for name in tracked.splitlines() if name.endswith((".c", ".so", ".html", ".pyc"))]
    assert generated == ["tests/process/disk_faults.c"], "which is written by hand"
