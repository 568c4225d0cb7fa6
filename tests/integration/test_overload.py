"""More load than three nodes can carry, with one of them dead: refused, bounded, and over when it is over (F16)."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIB = 1 << 20

SCRIPT = """
    import json, os, sys, threading, time
    import paxos
    from paxos.errors import Busy

    def rss():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    MIB = 1 << 20
    config = paxos.Config(
        window_bytes=1 * MIB, pending_bytes_max=2 * MIB, batch_bytes_max=MIB // 4, command_bytes_max=MIB,
        unapplied_bytes_max=2 * MIB, retained_bytes_max=2 * MIB, unchosen_bytes_max=4 * MIB,
        segment_bytes=4 * MIB, election_timeout_ms=3000, heartbeat_ms=100,
    )
    seconds = float(sys.argv[2])
    with paxos.LocalCluster(3, directory=sys.argv[1], config=config) as cluster:
        for replica in cluster.replicas.values():
            replica.propose(b"warm", 60)
        dead = next(id for id in cluster.replicas if id != cluster.leader().node_id)
        cluster.kill(dead)
        counts = {"ok": 0, "busy": 0, "other": 0}
        lock = threading.Lock()
        end = time.monotonic() + seconds

        def hammer(replica):
            # Far more than the limits allow at a time, from threads that never wait for an answer.
            while time.monotonic() < end:
                futures, busy = [], 0
                for _ in range(200):
                    try:
                        futures.append(replica.submit(b"x" * 20_000))
                    except Busy:
                        busy += 1
                for future in futures:
                    try:
                        future.result(60)
                        outcome = "ok"
                    except paxos.PaxosError:
                        outcome = "other"
                    with lock:
                        counts[outcome] += 1
                with lock:
                    counts["busy"] += busy

        threads = [
            threading.Thread(target=hammer, args=(replica,))
            for replica in cluster.replicas.values() for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        samples = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
            samples.append(rss())
        for thread in threads:
            thread.join()
        after = [replica.propose(b"after", 60).index for replica in cluster.replicas.values()]
        cluster.restart(dead)
        last = cluster.replicas[dead].propose(b"the dead one is back", 60).index
        print(json.dumps({"counts": counts, "rss": samples, "after": after, "last": last}))
"""


def test_f16_an_overload_is_refused_bounded_and_over_when_it_is_over(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "data"), "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    counts = seen["counts"]
    assert counts["ok"] > 0 and counts["busy"] > 0, counts
    # The limits of two nodes, their window, backlogs and queues, with room for the allocator; the load is
    # hundreds of megabytes.
    early = seen["rss"][min(len(seen["rss"]) - 1, 10)]
    assert max(seen["rss"]) - early < 32 * MIB, [sample // MIB for sample in seen["rss"]]
    # Commands go on, at both nodes, and the dead one gets everything that it missed.
    assert seen["last"] > max(seen["after"]) >= counts["ok"]
