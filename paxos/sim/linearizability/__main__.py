"""``python -m paxos.sim.linearizability``: a verdict for each history file, and why."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from paxos.sim.linearizability.checker import Result, Verdict, check
from paxos.sim.linearizability.files import FORMATS, load
from paxos.sim.linearizability.models import MODELS, Model
from paxos.sim.linearizability.operations import UNKNOWN, MalformedHistory, Operation, freeze

LINEARIZABLE, NOT_LINEARIZABLE, UNDECIDED = 0, 1, 2
STATUS = {
    Verdict.LINEARIZABLE: LINEARIZABLE,
    Verdict.NOT_LINEARIZABLE: NOT_LINEARIZABLE,
    Verdict.INCONCLUSIVE: UNDECIDED,
}


def model_named(name: str) -> Callable[..., Model]:
    """Return the class of a model: one of ours by its name, or another one as ``module:Class``."""
    if name in MODELS:
        return MODELS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(MODELS)}, nor module:Class")
    try:
        found: Callable[..., Model] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot import {name!r}: {error}") from error
    return found


def json_value(text: str) -> Any:
    """Parse an argument that is a value in JSON."""
    try:
        return freeze(json.loads(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error


def positive(text: str) -> float:
    """Parse a number above zero."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m paxos.sim.linearizability",
        description="Decide whether recorded histories are linearizable, and show why if they are not.",
        epilog="Exit status: 0 all are linearizable; 1 one is not; 2 one is undecided or cannot be read.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a history; - is the standard input")
    parser.add_argument(
        "--model",
        required=True,
        type=model_named,
        metavar="MODEL",
        help=f"{', '.join(MODELS)}, or your own as module:Class",
    )
    parser.add_argument("--format", choices=FORMATS, help="JSON lines, EDN or Jepsen's log; default: look")
    parser.add_argument(
        "--keyed", action="store_true", help="values are [key value] (Jepsen's independent tests)"
    )
    parser.add_argument(
        "--initial",
        type=json_value,
        metavar="JSON",
        help="what is there before the first write; default null",
    )
    parser.add_argument("--timeout", type=positive, default=60.0, metavar="S", help="seconds for a file (60)")
    parser.add_argument(
        "--configurations",
        type=int,
        default=5_000_000,
        metavar="N",
        help="for a key, at about 100 bytes each (5,000,000)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each file")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def as_fields(operation: Operation) -> dict[str, Any]:
    """Return what JSON says of an operation."""
    return {
        "line": operation.line,
        "process": operation.process,
        "f": operation.f,
        "key": operation.key,
        "value": operation.value,
        "result": None if operation.result is UNKNOWN else operation.result,
        "invoked": operation.invoked,
        "returned": operation.returned,
        "text": str(operation),
    }


def as_json(path: str, result: Result) -> str:
    """Return a result as a line of JSON."""
    fields: dict[str, Any] = {
        "file": path,
        "verdict": result.verdict.value,
        "operations": result.operations,
        "dropped": result.dropped,
        "keys": result.keys,
        "configurations": result.configurations,
        "seconds": round(result.seconds, 6),
    }
    if result.reason:
        fields["reason"] = result.reason
    found = result.counterexample
    if found is not None:
        fields["counterexample"] = {
            "key": found.key,
            "operations": [
                as_fields(operation) | {"free": operation.number in found.free}
                for operation in found.operations
            ],
            "left_out": found.left_out,
            "order": [operation.line for operation in found.order],
            "state": found.state,
            "stuck_at": found.stuck_at.line,
            "refused": [{"line": operation.line, "reason": reason} for operation, reason in found.refused],
        }
    return json.dumps(fields, default=repr)


def judge(path: str, options: argparse.Namespace) -> int:
    """Print what is to be said of one file; return its exit status."""
    model = options.model() if options.initial is None else options.model(options.initial)

    def progress(text: str) -> None:
        print(f"{path}: {text}", file=sys.stderr, flush=True)

    try:
        history = load("/dev/stdin" if path == "-" else path, format=options.format, keyed=options.keyed)
        result = check(
            history,
            model,
            timeout_s=options.timeout,
            configurations_max=options.configurations,
            progress=None if options.quiet else progress,
        )
    except (MalformedHistory, OSError) as error:
        if options.json:
            print(json.dumps({"file": path, "verdict": "unreadable", "reason": str(error)}))
        print(error, file=sys.stderr)
        return UNDECIDED
    print(as_json(path, result) if options.json else f"{path}: {result.describe()}", flush=True)
    return STATUS[result.verdict]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.initial is not None:
        try:
            options.model(options.initial)
        except TypeError:
            parser.error("--initial: this model begins with a state of its own")
    found = {judge(path, options) for path in options.files}
    if NOT_LINEARIZABLE in found:
        return NOT_LINEARIZABLE
    return max(found)


if __name__ == "__main__":
    sys.exit(main())
