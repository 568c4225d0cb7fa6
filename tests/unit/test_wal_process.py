"""kill -9 of a process that writes the log, again and again: whatever it was told is durable is there afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.unit import wal_kit as kit

WRITER = """
import os, sys
from tests.unit import wal_kit as kit
from pathlib import Path

wal = kit.open_log(Path(sys.argv[1]), create=True, segment_bytes=16384)
found = kit.accepted(wal.scan())
slot = max(found, default=0)
out = os.fdopen(int(sys.argv[2]), "wb", buffering=0)
out.write(b"open %d\\n" % slot)
while True:
    batch = [kit.accept(slot + n + 1, (b"%d " % (slot + n + 1)) * (1 + (slot + n) % 90)) for n in range(slot % 7 + 1)]
    wal.append(batch)
    wal.sync()
    slot += len(batch)
    out.write(b"%d\\n" % slot)
"""


def test_f3_kill_9_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    chance = random.Random(9)
    acknowledged = 0
    for _ in range(8):
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(writer)],
            pass_fds=[writer],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        os.close(writer)
        lines = chance.randrange(1, 150)
        try:
            with os.fdopen(reader, "rb") as pipe:
                opened = int(pipe.readline().split()[1])
                assert opened >= acknowledged, "an acknowledged slot is gone"
                told = [int(pipe.readline()) for _ in range(lines)]
                process.send_signal(signal.SIGKILL)
                told += [int(line) for line in pipe.read().split(b"\n")[:-1]]
        finally:
            process.kill()
            process.wait()
        with kit.open_log(tmp_path, segment_bytes=16384) as wal:
            found = kit.accepted(wal.scan())
        acknowledged = max(acknowledged, *told)
        assert sorted(found) == list(range(1, len(found) + 1)), "a hole"
        assert len(found) >= acknowledged
        for slot, value in found.items():
            assert value == (b"%d " % slot) * (1 + (slot - 1) % 90)
    assert acknowledged > 100


def test_a_forked_child_neither_writes_nor_hangs(tmp_path: Path) -> None:
    with kit.open_log(tmp_path, create=True) as wal:
        for slot in range(1, 40):
            wal.append([kit.accept(slot)])
        child = os.fork()
        if child == 0:
            wal.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        wal.sync()
        wal.append([kit.accept(40)])
        wal.sync()
        assert sorted(kit.accepted(wal.scan())) == list(range(1, 41))
