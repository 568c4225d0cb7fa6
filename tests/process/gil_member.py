"""One member for ``test_gil_held.py``: a process that can block its own interpreter in a C call.

Usage: ``gil_member.py DIRECTORY NODE_ID MEMBERS_JSON``; newline-delimited JSON on stdin and stdout.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from typing import Any

import paxos
from paxos._core.load import NativeLoad


def hold_the_gil(seconds: float) -> None:
    """Sleep in a C call that keeps the GIL: no Python thread of this process runs meanwhile."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


class Probe(threading.Thread):
    """Measures the longest time for which the interpreter ran no other thread."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest_s = 0.0

    def run(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(0.01)
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - last)
            last = now


def main() -> None:
    directory, node_id, members = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    addresses = {int(node): address for node, address in members.items()}
    probe = Probe()
    probe.start()
    load: NativeLoad | None = None
    with paxos.Replica(directory, node_id=node_id, members=addresses) as replica:
        parts = replica._node.parts
        for line in sys.stdin:
            request: dict[str, Any] = json.loads(line)
            answer: dict[str, Any] = {}
            match request["do"]:
                case "status":
                    status = replica.status()
                    answer = {
                        "leader": status.leader,
                        "chosen_upto": status.chosen_upto,
                        "incarnation": parts.incarnation,
                        "cluster": parts.cluster_id,
                        "counters": parts.engine.counters(),
                        "received": parts.reactor.status()["received_by_kind"],
                        "blocked_s": probe.longest_s,
                    }
                case "load":
                    load = NativeLoad(parts.reactor, request["count"], 64, 2000, 30.0)
                    load.start()
                case "hold":
                    hold_the_gil(request["seconds"])
                case "loaded":
                    assert load is not None
                    load.stop(30.0)
                    answer = {"failed": load.failed, "finished_us": load.finished_us}
                case "end":
                    break
            print(json.dumps(answer), flush=True)


main()
