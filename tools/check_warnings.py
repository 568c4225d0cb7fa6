"""Fail if Cython or the C compiler warns about anything in the compiled core.

Every module is translated afresh into a directory that is thrown away, with the directives of ``setup.py``;
the C is then only parsed, with warnings on, which is much quicker than compiling it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
C_FLAGS = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function"]


def translate(directory: str) -> list[str]:
    """Translate every module into ``directory`` and return the lines in which Cython warns."""
    environment = os.environ | {
        "CYTHON_FORCE_REGEN": "1",
        "PAXOS_CYTHON_DIR": directory,
        "PAXOS_BUILD_JOBS": "2",
    }
    result = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--version"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        sys.exit(result.stdout)
    return [line for line in result.stdout.splitlines() if "warning" in line.lower()]


def parse(source: Path) -> list[str]:
    """Let the C compiler look at one generated file; return what it has to say."""
    compiler = os.environ.get("CC", "cc").split()
    include = [f"-I{sysconfig.get_paths()['include']}", f"-I{ROOT / '_core'}"]
    result = subprocess.run(
        [*compiler, *C_FLAGS, "-fsyntax-only", *include, str(source)], capture_output=True, text=True
    )
    return result.stderr.splitlines()


def main() -> int:
    """Return 0 if there is no warning at all."""
    with tempfile.TemporaryDirectory() as directory:
        found = translate(directory)
        sources = sorted(Path(directory).rglob("*.c"))
        with ThreadPoolExecutor(2) as pool:
            for lines in pool.map(parse, sources):
                found += lines
    print("\n".join(found) or f"{len(sources)} compiled modules: no warnings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
