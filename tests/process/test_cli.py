"""The ``paxos`` command as people meet it: real processes, real directories, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from paxos.cli import main
from paxos.cli.channel import SOCKET_NAME, ChannelClient
from paxos.cli.processes import free_ports

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
PAXOS = [sys.executable, "-m", "paxos.cli"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def run(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``paxos`` to its end."""
    command = [*PAXOS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT)


def processes_that_mention(text: str) -> list[int]:
    """Return the ids of processes on whose command line ``text`` stands."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


class Server:
    """One ``paxos serve`` process."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*PAXOS, "serve", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def ready(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.end()
        return line

    def end(self) -> tuple[int, str, str]:
        """Return exit code, the rest of the output, and the messages."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*arguments: str | Path) -> Server:
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def ask(directory: Path, op: str, **arguments: object) -> dict[str, object]:
    """Ask a running node one thing."""
    client = ChannelClient(directory, timeout_s=30)
    try:
        return client.ask(op, **arguments)
    finally:
        client.close()


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["serve"], ["status"], ["log"], ["log", "dump"], ["log", "verify"]]
)
def test_help_teaches(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"], prog_name="paxos")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: paxos")
    if command and command != ["log"]:
        assert "Exit codes:" in result.stdout
        assert "Example" in result.stdout or "nodes" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command"),
        (["demo", "/does/not/exist"], "does not exist"),
        (["serve"], "--data"),
        (["serve", "--data", "x", "--member", "1"], "ID=ADDRESS"),
        (["serve", "--data", "x", "--id", "1", "--member", "1=foo"], "does not parse"),
        (["serve", "--data", "x", "--bind", "foo"], "does not parse"),
        (["serve", "--data", "x", "--id", "1"], "--id needs --member"),
        (["serve", "--data", "x", "--member", "1=tcp://127.0.0.1:1"], "--member needs --id"),
        (["serve", "--data", "x", "--id", "2", "--member", "1=tcp://127.0.0.1:1"], "not among the members"),
        (["serve", "--data", "x", "--id", "0", "--member", "1=tcp://127.0.0.1:1"], "--id"),
        (["status", "/does/not/exist"], "does not exist"),
        (["log", "verify", "/does/not/exist"], "does not exist"),
    ],
)
def test_usage_errors_exit_2_with_a_clear_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments, prog_name="paxos")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr


def test_the_command_is_a_process_of_its_own() -> None:
    result = run("serve", "--data")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--data" in result.stderr
    assert run("--version").stdout.startswith("paxos (cypaxos) ")


def test_an_empty_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    result = run("demo", tmp_path / "empty")
    assert (result.returncode, result.stdout) == (2, "")
    assert "is empty" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_cleanly_and_the_log_is_there_after_a_restart(
    serve: Serve, tmp_path: Path, number: signal.Signals
) -> None:
    data = tmp_path / "n1"
    for attempt in (1, 2):
        server = serve("--data", data)
        assert str(data) in server.ready()
        assert ask(data, "propose", command=f"command {attempt}")["index"] == attempt
        server.process.send_signal(number)
        code, out, err = server.end()
        assert (code, out, err) == (0, "", "")
        assert not (data / SOCKET_NAME).exists()
    result = run("log", "dump", data, "--json")
    assert result.returncode == 0
    assert [json.loads(line)["command"] for line in result.stdout.splitlines()] == ["command 1", "command 2"]


def test_d1_what_was_acknowledged_survives_kill_9(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    server = serve("--data", data)
    server.ready()
    for number in range(1, 21):
        assert ask(data, "propose", command=f"{number}")["index"] == number
    server.process.kill()
    server.end()
    assert run("log", "verify", data).returncode in (0, 1)
    serve("--data", data).ready()
    entries = ask(data, "read", start=1, limit=100)["entries"]
    assert isinstance(entries, list)
    assert [command for _, _, command in entries] == [str(number) for number in range(1, 21)]


def test_the_second_process_on_a_directory_is_refused(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    first = serve("--data", data)
    first.ready()
    second = run("serve", "--data", data)
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr.startswith("error: ")
    assert "Traceback" not in second.stderr
    assert ask(data, "propose", command="still there")["index"] == 1
    first.process.terminate()
    assert first.end()[0] == 0


def test_a_directory_of_another_node_is_refused(serve: Serve, tmp_path: Path) -> None:
    server = serve("--data", tmp_path / "n1")
    server.ready()
    server.process.terminate()
    server.end()
    port = free_ports(1)[0]
    result = run("serve", "--data", tmp_path / "n1", "--id", "7", "--member", f"7=tcp://127.0.0.1:{port}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_an_address_in_use_is_refused(serve: Serve, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    member = ["--id", "1", "--member", f"1=tcp://127.0.0.1:{port}"]
    serve("--data", tmp_path / "a", *member).ready()
    result = run("serve", "--data", tmp_path / "b", *member)
    assert result.returncode == 1
    assert str(port) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_node_ends_with_its_parent(tmp_path: Path, serve: Serve) -> None:
    data = tmp_path / "n1"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([*sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline(), flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [*PAXOS, "serve", "--data", str(data), "--until-stdin-closes"]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().startswith("ready ")
    parent.kill()
    parent.communicate()
    wait_until(lambda: not processes_that_mention(str(data)), "the node has ended")


def test_status_for_people_and_for_tools(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    server = serve("--data", data)
    server.ready()
    ask(data, "propose", command="one")
    told = run("status", data, "--json")
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)["status"]
    assert (status["role"], status["last_index"]) == ("leader", 1)
    assert "leader" in run("status", data).stdout
    assert json.loads(run("status", data, "--inspect").stdout)["inspect"]
    server.process.terminate()
    server.end()
    gone = run("status", data)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "no node answers" in gone.stderr


def make_log(serve: Serve, data: Path, count: int = 50) -> None:
    """Let a node write a small log and stop cleanly."""
    server = serve("--data", data)
    server.ready()
    for number in range(count):
        ask(data, "propose", command=f"command {number} " + "x" * 50)
    server.process.terminate()
    assert server.end()[0] == 0


def segments(data: Path) -> list[Path]:
    """Return the largest files of a data directory that hold the commands."""
    holding = [path for path in data.rglob("*") if path.is_file() and b"command 25 " in path.read_bytes()]
    assert holding
    return holding


def test_verify_exit_codes_clean_and_damaged(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    make_log(serve, data)
    clean = run("log", "verify", data, "--json")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert json.loads(clean.stdout)["verdict"] == "clean"
    assert run("log", "verify", data).returncode == 0
    for path in segments(data):
        content = bytearray(path.read_bytes())
        content[content.index(b"command 25 ") + 9] ^= 1
        path.write_bytes(content)
    damaged = run("log", "verify", data, "--json")
    assert damaged.returncode == 2, damaged.stdout + damaged.stderr
    assert json.loads(damaged.stdout)["verdict"] == "damaged"


def test_verify_exit_code_repairable_for_a_torn_tail(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    server = serve("--data", data)
    server.ready()
    for number in range(30):
        ask(data, "propose", command=f"command {number} " + "x" * 50)
    server.process.kill()
    server.end()
    (path,) = segments(data)
    content = bytearray(path.read_bytes())
    end = len(content.rstrip(b"\0"))
    content[end : end + 200] = b"\xa5" * 200  # what a write that never finished may leave
    path.write_bytes(content)
    result = run("log", "verify", data, "--json")
    assert result.returncode == 1, result.stdout + result.stderr
    assert json.loads(result.stdout)["verdict"] == "repairable"
    serve("--data", data).ready()
    entries = ask(data, "read", start=1, limit=100)["entries"]
    assert isinstance(entries, list)
    assert len(entries) == 30


def test_what_is_not_a_data_directory_is_told_apart(tmp_path: Path) -> None:
    result = run("log", "verify", tmp_path)
    assert result.returncode == 3
    assert result.stderr.startswith("error: ")


def test_dump_shows_a_range(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "n1"
    make_log(serve, data, count=10)
    result = run("log", "dump", data, "--from", "3", "--count", "2")
    assert result.returncode == 0
    assert ["command 2", "command 3"] == [" ".join(line.split()[2:4]) for line in result.stdout.splitlines()]
