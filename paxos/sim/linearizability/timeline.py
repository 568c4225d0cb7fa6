"""Operations as a time line: one row each, a bar from its invocation to its return."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from paxos.sim.linearizability.operations import Operation

WIDTH = 64
STEP_MAX = 4


def draw(operations: Sequence[Operation], marked: Collection[int] = ()) -> list[str]:
    """Return the rows; bars show the order of the events, not how long they took.

    Operations whose number is in ``marked`` get a star.

    Events at the same time share a column: ``|`` is an operation that took no time at all, and ``..`` at the
    end means that nobody knows when it ended.
    """
    times = sorted(
        {operation.invoked for operation in operations}
        | {operation.returned for operation in operations if operation.returned is not None}
    )
    step = min(STEP_MAX, WIDTH / max(1, len(times)))
    column = {moment: int(step * place) for place, moment in enumerate(times)}
    end = int(step * len(times))
    rows = [("line", "process", "operation", "time")]
    for operation in operations:
        start = column[operation.invoked]
        if operation.returned is None:
            bar = "[" + "-" * (end - start) + ".."
        elif operation.returned == operation.invoked:
            bar = "|"
        else:
            bar = "[" + "-" * (column[operation.returned] - start - 1) + "]"
        name = f"{operation}{' *' if operation.number in marked else ''}"
        rows.append((str(operation.line), str(operation.process), name, " " * start + bar))
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    return [
        f"  {line:>{widths[0]}}  {process:<{widths[1]}}  {operation:<{widths[2]}}  {bar}".rstrip()
        for line, process, operation, bar in rows
    ]
