"""Inputs of a node in words."""

from __future__ import annotations

from typing import Any

from paxos._core import ballot as ballots
from paxos._core import codec
from paxos.sim import wire
from paxos.sim.explore.claims import value_text

Kind = wire.Kind


def describe(do: tuple[Any, ...]) -> str:
    """Return one input as people read it."""
    match do[0]:
        case "frame":
            return f"takes {frame_text(wire.view(do[1]))}"
        case "lead":
            values = [value_text(kind, value) for kind, value in do[1].values]
            return f"leads at {ballots.text(do[1].ballot)} from slot {do[1].first_slot}, found {values}"
        case "campaign":
            return "campaigns"
        case "offer":
            return "is offered its client's command"
        case "restart":
            return "loses power and restarts" + (f", {do[1]} unsynced records survive" if do[1] else "")
        case "crash":
            return f"{describe(do[2])}, and loses power with {do[1]} of the records written; it restarts"
        case _:
            return "syncs what it had not waited for"


def frame_text(frame: wire.Frame) -> str:
    """Return a frame as people read it."""
    at = f" at {ballots.text(frame.ballot)}" if frame.ballot and frame.ballot != wire.BALLOT_CHOSEN else ""
    text = f"{wire.KIND_NAMES[frame.kind]}{at} from node {frame.sender}"
    if frame.incarnation > 1:
        text += f" (incarnation {frame.incarnation})"
    match frame.kind:
        case Kind.ACCEPT:
            text += (
                f": {value_text(frame.detail, frame.payload)} in slot {frame.slot}, chosen up to {frame.mark}"
            )
        case Kind.ACCEPTED:
            text += f": up to slot {frame.slot}"
        case Kind.OPEN:
            text += f": from slot {frame.slot}"
        case Kind.DECIDE:
            text += f": chosen up to {frame.mark}"
        case Kind.PROMISE:
            page = wire.promise(frame.data)
            votes = [
                f"slot {slot}: {'chosen' if ballot == wire.BALLOT_CHOSEN else ballots.text(ballot)}"
                for slot, ballot, *_ in page.entries
            ]
            text += f": {', '.join(votes) or 'no votes'}; page {page.page + 1} of {page.pages}"
        case Kind.CHOSEN:
            text += f": {value_text(frame.detail, frame.payload)} in slot {frame.slot}"
        case Kind.FETCH | Kind.FETCHED | Kind.FETCH_CHOSEN:
            text += f": slot {frame.slot}"
        case Kind.NACK:
            text += f": {codec.NackReason(frame.detail).name}"
    return text
