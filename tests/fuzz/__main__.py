"""``python -m tests.fuzz TARGET``: hostile bytes for as long as one likes, guided by coverage (``make fuzz``).

Atheris must be installed (``pip install atheris``). What follows the target goes to libFuzzer:
``-max_total_time=600``, ``-runs=100000``, a directory for the corpus. Without one the corpus is kept in
``build/fuzz/TARGET``, and later runs go on from there. A finding is written to ``build/fuzz``; give that file in
the place of a corpus to run it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

CORPORA = Path(__file__).parents[2] / "build" / "fuzz"
NAMES = ("decoders", "frame", "wal", "identity", "catalogue")


def seeds(target: str) -> list[bytes]:
    """Return inputs to begin with."""
    from tests.fuzz import corpus, targets

    if target in ("frame", "decoders"):
        frames = corpus.record()
        return [b"\1" + frame for frame in frames] + frames + [frame[72:] for frame in frames]
    if target == "identity":
        return [targets.IDENTITY.encode()]
    return [bytes([mode, 0, 2]) + bytes(range(80)) for mode in range(8)]


def main() -> None:
    """Fuzz one target until libFuzzer ends."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        raise SystemExit(f"usage: python -m tests.fuzz {{{','.join(NAMES)}}} [libFuzzer options]")
    try:
        import atheris
    except ImportError as error:
        raise SystemExit("atheris is not installed: pip install atheris") from error
    with atheris.instrument_imports(include=["paxos", "tests"]):
        from tests.fuzz import targets
    target = sys.argv[1]
    options = [f"-artifact_prefix={CORPORA}/", *(option for option in sys.argv[2:] if option.startswith("-"))]
    corpora = [option for option in sys.argv[2:] if not option.startswith("-")]
    if not corpora:
        corpora = [str(CORPORA / target)]
        Path(corpora[0]).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds(target)):
            (Path(corpora[0]) / f"seed-{number}").write_bytes(data)
    atheris.Setup([sys.argv[0], *options, *corpora], targets.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
