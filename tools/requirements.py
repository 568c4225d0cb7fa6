"""Print what building, running and testing this tree needs, one requirement a line, from pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path


def requirements() -> list[str]:
    """Return the requirements of the build, of the library and of its development, without repetitions."""
    data = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    project = data["project"]
    wanted = (
        data["build-system"]["requires"] + project["dependencies"] + project["optional-dependencies"]["dev"]
    )
    return list(dict.fromkeys(wanted))


if __name__ == "__main__":
    print("\n".join(requirements()))
