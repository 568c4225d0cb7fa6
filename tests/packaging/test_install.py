"""Wheel, source distribution and editable install: each builds, installs into a fresh environment, imports,
and lets other Cython code ``cimport`` from it.

The fresh environments borrow the dependencies (never the project) of the environment that runs the tests, so
that nothing is downloaded here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.stem for path in (ROOT / "_core").glob("*.pyx"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

IMPORTS = """
import importlib, importlib.metadata, pathlib, sys
import paxos
for name in sys.argv[1:]:
    importlib.import_module("paxos._core." + name)
here = pathlib.Path(paxos.__file__).parent
assert (here / "py.typed").exists()
assert {path.stem for path in (here / "_core").glob("*.pxd")} >= set(sys.argv[1:])
assert {path.stem for path in (here / "_core").glob("*.pyi")} >= set(sys.argv[1:])
import paxos.sim.diagram
assert "<canvas" in paxos.sim.diagram.page([], "nothing")
print(here, importlib.metadata.version("cypaxos"))
"""

CIMPORTS = """
from paxos._core.ballot cimport ballot_make, ballot_node
from paxos._core.codec cimport HEADER_BYTES, FrameHeader
from paxos._core.effects cimport Ready

def probe():
    cdef Ready ready = Ready()
    return ballot_node(ballot_make(3, 2)), sizeof(FrameHeader) == HEADER_BYTES, ready.records.count
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command; show everything that it printed if it fails."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PAXOS_PREBUILT")}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        # Where the compiler goes through ccache, another directory is no reason to compile again.
        env=clean | {"PAXOS_BUILD_JOBS": "2", "CCACHE_NOHASHDIR": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def copy_of_tree(target: Path) -> Path:
    """Copy what a fresh checkout would hold: nothing built, the link to the core still a link."""
    built = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "build", "dist", ".*", "data")
    shutil.copytree(ROOT, target, symlinks=True, ignore=built)
    for generated in (target / "_core").glob("*.c"):
        generated.unlink()
    if (ROOT / ".ci").exists():
        shutil.copytree(ROOT / ".ci", target / ".ci")
    return target


def fresh_environment(path: Path) -> Path:
    """Make an environment that has our dependencies but not the project; return its interpreter."""
    venv.create(path, with_pip=False, symlinks=True)
    python = path / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=path).strip()
    # Files named *.pth inside that directory are not followed: an editable install there stays invisible.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def install(python: Path, *arguments: str | Path, **environment: str) -> None:
    """Let the pip of this environment install into another one, offline."""
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps",
        "--no-build-isolation", "--disable-pip-version-check", *arguments, cwd=python.parent, **environment,
    )  # fmt: skip


def check_imports(python: Path, expected: Path) -> None:
    """Import everything from a directory that is not the tree; run the installed command."""
    where, version = run(python, "-I", "-c", IMPORTS, *MODULES, cwd=python.parent).split()
    assert Path(where).is_relative_to(expected)
    assert version == VERSION
    assert VERSION in run(python.parent / "paxos", "--version", cwd=python.parent)


def check_cimports(python: Path, directory: Path) -> None:
    """Translate, compile and run a module that cimports from the installed project."""
    directory.mkdir()
    (directory / "probe.pyx").write_text(CIMPORTS)
    (directory / "setup.py").write_text(
        "from setuptools import setup\n"
        "from Cython.Build import cythonize\n"
        "setup(name='probe', ext_modules=cythonize('probe.pyx', language_level=3))\n"
    )
    run(python, "setup.py", "--quiet", "build_ext", "--inplace", cwd=directory)
    answer = run(python, "-c", "import probe; print(probe.probe())", cwd=directory)
    assert answer.strip() == "(2, True, 0)"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution from a clean copy of the tree."""
    tree = copy_of_tree(tmp_path_factory.mktemp("source") / "tree")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tree / "dist", cwd=tree)
    (archive,) = (tree / "dist").glob("cypaxos-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the unpacked source distribution, as an installer would."""
    directory = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
        archive.extractall(directory)
    (tree,) = directory.iterdir()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory / "dist", cwd=tree)
    (built,) = (directory / "dist").glob("cypaxos-*.whl")
    return built


def test_the_sdist_holds_every_source_and_nothing_generated(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym() or member.islnk()]
    names = {member.name.partition("/")[2] for member in members}
    for module in MODULES:
        assert {f"paxos/_core/{module}.{kind}" for kind in ("pyx", "pxd", "pyi")} <= names
    assert {"paxos/py.typed", "setup.py", "pyproject.toml", "LICENSE", "README.md", "Makefile"} <= names
    assert {"tests/packaging/test_install.py", "tests/process/disk_faults.c"} <= names
    assert not [name for name in names if name.endswith((".so", ".html", ".pyc"))]
    assert not [name for name in names if name.startswith("paxos/") and name.endswith(".c")]


def test_the_wheel_holds_what_users_and_type_checkers_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for module in MODULES:
        assert {f"paxos/_core/{module}{kind}" for kind in (suffix, ".pxd", ".pyi")} <= names
    assert "paxos/py.typed" in names
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "paxos").rglob("__init__.py")}
    assert {f"{package}/__init__.py" for package in packages} <= names
    assert not [name for name in names if name.endswith((".c", ".pyx", ".html", ".pyc"))]
    assert {name.split("/")[0] for name in names} == {"paxos", f"cypaxos-{VERSION}.dist-info"}


def test_the_wheel_installs_imports_and_cimports(wheel: Path, tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "venv")
    install(python, wheel)
    check_imports(python, tmp_path / "venv")
    check_cimports(python, tmp_path / "probe")


def test_an_editable_install_imports_and_cimports(tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path / "tree")
    python = fresh_environment(tmp_path / "venv")
    install(python, "--editable", tree, PAXOS_DEBUG="1")
    check_imports(python, tree)
    check_cimports(python, tmp_path / "probe")
    assert (tree / "paxos" / "_core").is_symlink()
