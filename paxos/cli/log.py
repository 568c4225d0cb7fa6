"""``paxos log``: look at a data directory while its node is stopped, and repair it from the members that run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from paxos import repairing
from paxos.cli.serve import parse_members
from paxos.errors import PaxosError
from paxos.storage import inspection

CANNOT_LOOK = 3

DIRECTORY = click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
FORCE = click.option(
    "--force",
    is_flag=True,
    help="Look even if a node runs on it; what it is writing now looks like a torn tail.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="For tools: JSON instead of text.")


@click.group(short_help="look at the log on disk, offline")
def log() -> None:
    """Look at the data directory of a node that is stopped, or repair it. Only `repair` writes anything."""


@log.command(short_help="check every checksum; exit 0 clean, 1 repairable, 2 damaged")
@DIRECTORY
@FORCE
@JSON
def verify(directory: Path, force: bool, as_json: bool) -> None:
    """Check the identity and every checksum of the log in DIRECTORY.

    A torn tail is what a crash leaves of a write that nobody was told of: the next start cuts it. Damage is
    anything else: bytes that were acknowledged and are not what they were. A damaged node fetches what it can
    from its peers; never delete its directory to get rid of the message.

    \b
    Examples:
      paxos log verify /var/lib/log
      paxos log verify /var/lib/log --json | jq .findings

    \b
    Exit codes:
      0  clean
      1  repairable: a torn tail, which the next start cuts
      2  damaged; the findings say where. (A usage error exits 2 as well, with nothing on standard output.)
      3  it could not be examined: no data directory, unreadable, or a node is running on it
    """
    try:
        report = inspection.verify(directory, force=force)
    except (PaxosError, OSError) as error:
        _cannot_look(error)
    if as_json:
        fields = asdict(report)
        click.echo(json.dumps({"verdict": fields.pop("status"), **fields}, indent=2))
    else:
        _print_report(report)
    sys.exit(report.exit_code)


def _print_report(report: inspection.Report) -> None:
    who = f"node {report.node_id} of {report.cluster!r}" if report.node_id is not None else "an unknown node"
    click.echo(f"{report.directory}: {report.status}")
    click.echo(f"  {who}, incarnation {report.incarnation}, storage {report.storage or 'unknown'}")
    slots = f"slots {report.first_slot}..{report.last_slot}" if report.last_slot else "no slots"
    click.echo(
        f"  {report.records} records in {report.segments} segments, {slots}, chosen to {report.chosen_upto}"
    )
    for finding in report.findings:
        where = (
            "" if finding.segment is None else f" (segment {finding.segment:016x}, offset {finding.offset})"
        )
        click.echo(f"  {finding.kind}: {finding.text}{where}")


@log.command(short_help="fetch damaged values from the members that run")
@DIRECTORY
@click.option(
    "--peer",
    "addresses",
    multiple=True,
    callback=parse_members,
    metavar="ID=ADDRESS",
    help="Where a member is, if not where the log says; then name all of them, this node included.",
)
@click.option("--dry-run", is_flag=True, help="Only say what is damaged; nothing is written.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for members and values.")
@JSON
def repair(directory: Path, addresses: dict[int, str], dry_run: bool, timeout: float, as_json: bool) -> None:
    """Fetch the values that are damaged in DIRECTORY from the other members, and write them anew.

    The node must be stopped, and others of its log must run. For the time of the repair it takes part without a vote:
    it learns what was chosen, nothing is made up, and what is damaged stays where it is beside the new copy. A node
    that is simply started does the same while it works; this command does it while it does not.

    \b
    Examples:
      paxos log repair /var/lib/log --dry-run
      paxos log repair /var/lib/log

    \b
    Exit codes:
      0  nothing is damaged any more
      1  something is: not chosen yet, or --dry-run
      2  usage error
      3  it cannot be repaired: in use, no member heard, or damaged where no peer can help (the message says so)
    """
    try:
        slots = repairing.repair(directory, addresses=addresses or None, timeout_s=timeout, dry_run=dry_run)
    except (PaxosError, OSError) as error:
        _cannot_look(error)
    if as_json:
        click.echo(json.dumps([asdict(slot) for slot in slots], indent=2))
    else:
        for slot in slots:
            click.echo(f"slot {slot.slot}\t{slot.fate}")
        click.echo(f"{len(slots)} damaged slots" if slots else "no value is damaged")
    sys.exit(1 if any(slot.fate in ("damaged", "not chosen yet") for slot in slots) else 0)


@log.command(short_help="print the commands of the log")
@DIRECTORY
@FORCE
@JSON
@click.option(
    "--from", "start", type=click.IntRange(min=1), default=1, show_default=True, help="First index."
)
@click.option("--count", type=click.IntRange(min=1), help="How many; all if left out.")
@click.option("--slots", is_flag=True, help="One line a slot, no-ops and configurations included.")
@click.option(
    "--all", "unchosen", is_flag=True, help="With --slots: go on behind what is known to be chosen."
)
def dump(
    directory: Path, force: bool, as_json: bool, start: int, count: int | None, slots: bool, unchosen: bool
) -> None:
    """Print the commands in DIRECTORY in order: index, slot, and the bytes of the command.

    Bytes that do not print are shown as \\xNN. With --json every line is one object, in which a command is a
    string with one character per byte.

    \b
    Examples:
      paxos log dump /var/lib/log --from 1000 --count 20
      paxos log dump /var/lib/log --json | jq -r .command
      paxos log dump /var/lib/log --slots --all

    \b
    Exit codes:
      0  printed
      2  usage error, or a slot on the way is damaged: what follows it has no known index and is not printed
      3  it could not be examined: no data directory, unreadable, or a node is running on it
    """
    if unchosen and not slots:
        raise click.UsageError("--all needs --slots: what is not known to be chosen has no index")
    try:
        if slots:
            lines = _slots(directory, force, unchosen, as_json)
        else:
            lines = _commands(directory, force, start, as_json)
        for number, line in enumerate(lines):
            if number == count:
                break
            click.echo(line)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (PaxosError, OSError) as error:
        _cannot_look(error)


def _commands(directory: Path, force: bool, start: int, as_json: bool) -> Iterator[str]:
    """Yield a line for every command from index ``start`` on."""
    for slot in inspection.dump(directory, from_index=start, force=force):
        if slot.damaged:
            click.echo(f"error: slot {slot.slot} is damaged; see paxos log verify", err=True)
            sys.exit(2)
        if not slot.index:
            continue
        for index, command in enumerate(slot.commands, start=slot.index):
            if index < start:
                continue
            if as_json:
                found = {"index": index, "slot": slot.slot, "origin": slot.origin}
                yield json.dumps({**found, "command": command.decode("latin-1")})
            else:
                yield f"{index}\t{slot.slot}\t{printable(command)}"


def _slots(directory: Path, force: bool, unchosen: bool, as_json: bool) -> Iterator[str]:
    """Yield a line for every slot."""
    for slot in inspection.dump(directory, chosen_only=not unchosen, force=force):
        fields: dict[str, Any] = {
            "slot": slot.slot,
            "kind": slot.kind,
            "chosen": slot.chosen,
            "ballot": slot.ballot,
            "index": slot.index,
            "commands": len(slot.commands),
            "bytes": slot.length,
            "origin": slot.origin,
            "damaged": slot.damaged,
        }
        yield (
            json.dumps(fields) if as_json else "\t".join(f"{name}={value}" for name, value in fields.items())
        )


def printable(command: bytes) -> str:
    r"""Return the command as one line of text.

    >>> printable("Überall\n\x00".encode()) == "Überall\\n\\x00"
    True
    >>> printable(b"\xff")
    '\\xff'
    """
    text = command.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _cannot_look(error: Exception) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(CANNOT_LOOK)
