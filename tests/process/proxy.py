"""Links that can be cut, one direction at a time: a TCP proxy for every directed pair of nodes, in its own process.

``python -m tests.process.proxy PORTS`` listens once for each directed pair and passes bytes on to the receiver's
real address. A node's frames to a peer travel on connections that the node opened, so a link is a proxy's port,
and what comes back on it is only what ZeroMQ says to keep the connection. Commands come as JSON lines on standard
input, and each is answered with a line when it is done:

* ``pass``: let bytes through, after ``delay_s``;
* ``hold``: take nothing more from the sender; what waits arrives late, when the link passes again (a black hole
  that TCP bridges);
* ``cut``: end the connections, and every new one at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from paxos.cli.processes import free_ports
from tests.process.cluster import ROOT, Cluster
from tests.process.member import die_with_parent

CHUNK_BYTES = 1 << 16

Link = tuple[int, int]
"""Sender and receiver."""


class Relay:
    """One directed link: what arrives at ``port`` goes to ``target``."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.delay_s = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self.is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.bytes = 0

    async def listen(self) -> None:
        await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def set(self, mode: str, delay_s: float) -> None:
        self.delay_s = delay_s
        self.is_cut = mode == "cut"
        if mode == "hold":
            self.open.clear()
        else:
            self.open.set()
        if self.is_cut:
            for writer in list(self._writers):
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            if self.is_cut:
                return
            back, onward = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(onward)
            if self.is_cut:
                return
            await asyncio.gather(self._pump(reader, onward, self.open), self._pump(back, writer, None))
        except OSError:
            pass
        finally:
            for each in filter(None, (writer, onward)):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None
    ) -> None:
        """Pass bytes on; the end of one direction ends the connection."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        sender = asyncio.create_task(self._deliver(late, writer, gate))
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if gate is not None:
                    await gate.wait()
                    self.bytes += len(chunk)
                late.put_nowait((loop.time() + (self.delay_s if gate is not None else 0.0), chunk))
            raise ConnectionResetError
        finally:
            sender.cancel()

    async def _deliver(
        self,
        late: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        gate: asyncio.Event | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await late.get()
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if gate is not None:
                await gate.wait()
            writer.write(chunk)
            with contextlib.suppress(OSError):
                await writer.drain()


async def serve(links: dict[Link, Relay]) -> None:
    """Relay until standard input ends."""
    for relay in links.values():
        await relay.listen()
    commands = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)
    while line := await commands.readline():
        command = json.loads(line)
        for sender, receiver in command["links"]:
            links[sender, receiver].set(command["mode"], command.get("delay_s", 0.0))
        print(json.dumps({"bytes": sum(relay.bytes for relay in links.values())}), flush=True)


class Links:
    """The links of a cluster, for the test that cuts them. Build it before the cluster is started.

    As a context manager it ends the proxy's process.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.nodes = sorted(cluster.nodes)
        self.all: list[Link] = [(a, b) for a in self.nodes for b in self.nodes if a != b]
        ports = dict(zip(self.all, free_ports(len(self.all)), strict=True))
        for (sender, receiver), port in ports.items():
            cluster.nodes[sender].routes[receiver] = f"tcp://127.0.0.1:{port}"
        plan = [
            [sender, receiver, port, int(cluster.members[receiver].rpartition(":")[2])]
            for (sender, receiver), port in ports.items()
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.proxy", json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def set(self, mode: str, links: Iterable[Link], delay_s: float = 0.0) -> dict[str, Any]:
        """Set the mode of some links; it holds when this returns."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"mode": mode, "links": list(links), "delay_s": delay_s}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def heal(self) -> None:
        """Let everything through."""
        self.set("pass", self.all)

    def only(self, good: Iterable[Link], mode: str = "cut") -> None:
        """Let these links through, and cut or hold all others."""
        kept = set(good)
        self.set("pass", kept)
        self.set(mode, [link for link in self.all if link not in kept])

    def between(self, one: Iterable[int], other: Iterable[int]) -> list[Link]:
        """Return the links between two sides, in both directions."""
        pairs = [(a, b) for a in one for b in other]
        return pairs + [(b, a) for a, b in pairs]


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(
        serve(
            {
                (sender, receiver): Relay(port, target)
                for sender, receiver, port, target in json.loads(sys.argv[1])
            }
        )
    )
