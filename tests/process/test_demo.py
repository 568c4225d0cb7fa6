"""``paxos demo`` end to end: three processes, the leader killed, and nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("demo")]

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "paxos.cli", "demo"]


def environment(tmp_path: Path) -> dict[str, str]:
    """Put the demonstration's data under the test's own directory."""
    return os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}


def nodes_left(tmp_path: Path) -> list[int]:
    """Return the processes that still work on a data directory of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if f"{tmp_path}/paxos-demo-".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def wait_until_none_left(tmp_path: Path) -> None:
    deadline = time.monotonic() + 30
    while nodes_left(tmp_path):
        assert time.monotonic() < deadline, "processes are left behind"
        time.sleep(0.05)


def test_a_real_file_survives_the_loss_of_the_leader(tmp_path: Path) -> None:
    noise = random.Random(7)
    lines = [noise.randbytes(noise.randrange(60)).replace(b"\n", b" ") for _ in range(1500)]
    lines += [b"", b"the same line", b"the same line", "Überall".encode(), bytes(range(11, 256))]
    file = tmp_path / "with a space.txt"
    file.write_bytes(b"\n".join(lines) + b"\n")
    result = subprocess.run(
        [*DEMO, "--json", str(file)], env=environment(tmp_path), capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["failures"] == []
    assert found["lines"] == len(lines)
    assert found["commands_per_log"] >= len(lines) + 2  # both attachments
    assert found["commit_p50_ms"] > 0
    assert found["without_leader_ms"] > 0
    assert "kill -9" in result.stderr
    assert not nodes_left(tmp_path)
    assert not list(tmp_path.glob("paxos-demo-*"))


def test_one_line_is_enough_and_keep_keeps(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_text("only")
    result = subprocess.run(
        [*DEMO, "--keep", str(file)], env=environment(tmp_path), capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "identical" in result.stdout
    (kept,) = tmp_path.glob("paxos-demo-*")
    assert {path.name for path in kept.iterdir() if path.is_dir()} == {"node1", "node2", "node3"}
    dumps = {
        subprocess.run(
            [sys.executable, "-m", "paxos.cli", "log", "dump", "--json", str(kept / f"node{n}")],
            env=environment(tmp_path),
            capture_output=True,
            check=True,
        ).stdout
        for n in (1, 2, 3)
    }
    assert len(dumps) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_at_work_it_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "long"
    file.write_bytes(b"a line\n" * 2_000_000)
    process = subprocess.Popen(
        [*DEMO, "--json", str(file)],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(nodes_left(tmp_path)) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the nodes do not start"
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    wait_until_none_left(tmp_path)
    if number != signal.SIGKILL:
        assert not list(tmp_path.glob("paxos-demo-*"))
