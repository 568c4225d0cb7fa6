"""Open a data directory, recover its log, and build what a node is made of: :func:`open_parts`."""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from pathlib import Path
from random import Random

from paxos import failpoints, validation
from paxos._core.batch import Batcher
from paxos._core.codec import FrameKind, ValueKind, decode_frame
from paxos._core.effects import QuarantineReason
from paxos._core.failpoint import reach
from paxos._core.reactor import Reactor
from paxos._core.recovery import recover
from paxos.control import Control
from paxos.engine import Engine
from paxos.errors import ConfigError, StorageError
from paxos.membership import Configuration
from paxos.node import Parts
from paxos.storage.quarantine import WAY_BACK, Quarantine, write_quarantine
from paxos.storage.scrub import Scrub
from paxos.storage.store import Store
from paxos.transport.zmq_transport import ZmqTransport
from paxos.types import Config

logger = logging.getLogger("paxos")

BATCH_OVERHEAD_BYTES = 64
"""More than what a batch of one command holds besides the command."""
PAYLOAD_BYTES_LEAST = 1 << 20
"""Frames of this size always pass: pages of promises, configurations."""


def open_parts(
    directory: Path,
    *,
    node_id: int | None,
    members: dict[int, str] | None,
    cluster: str,
    bind: str | None,
    config: Config,
    may_vote: bool = True,
) -> Parts:
    """Open the directory, recover the log, build everything that a node is made of; start nothing.

    On return the new incarnation is durable. If anything fails, everything is closed again.

    Args:
        may_vote: false for a node that only learns for once, to repair its log; see :mod:`paxos.repairing`.

    Raises:
        ConfigError: the directory belongs to another node or cluster, the members are not those of the log, or
            an address cannot be listened on.
        StorageError: the directory is in use or damaged.
    """
    failpoints.arm_from_environment()
    first_members = members or {node_id or 1: ""}
    with contextlib.ExitStack() as undo:
        store = Store(
            directory,
            node_id=node_id,
            cluster=cluster,
            first_cluster_id=validation.cluster_id(cluster, first_members),
            config=config,
            may_observe=len(first_members) > 1,
        )
        undo.callback(store.close)
        identity = store.identity
        engine, cold = _recovered(store, first_members, config)
        if not may_vote:
            engine.acceptor_role.quarantine()  # in memory only
        store.open_log()
        logged = _newest_configuration(cold, engine)
        if logged is None and identity.cluster_id != validation.cluster_id(cluster, first_members):
            raise ConfigError(
                f"{directory} was first started with other members, and its log does not say yet which ones: "
                "give the members (node ids and addresses) that it was first started with. If no member of this "
                "cluster has ever answered a command, you may also stop all of them and start with new directories"
            )
        members = _members_of(identity.node_id, members, logged, directory)
        if set(members) != set(first_members) and not engine.acceptor_role.peers.config_slot:
            # The log names the members, the caller did not. Until a configuration is known to be chosen here,
            # these are the ones whose votes count: never this node alone.
            engine.acceptor_role.peers.assume(dict.fromkeys(members))
        reach("listen", ConfigError)
        transport = _listen(identity.node_id, members, bind, config)
        undo.callback(transport.close)
        store.begin()
        parts = _assemble(store, engine, transport, members, config)
        # A configuration that is known to be chosen binds its members before anything is heard of them.
        for frame in cold:
            for intent in parts.control.on_frame(frame, 0):
                engine.act(intent)
        if store.quarantine is not None:
            logger.error(
                "node %d starts in quarantine: %s. %s", identity.node_id, store.quarantine.why, WAY_BACK
            )
        undo.pop_all()
        return parts


def _recovered(store: Store, first_members: dict[int, str], config: Config) -> tuple[Engine, list[bytes]]:
    """Return an engine with what the log holds, and its cold frames.

    If the log may have lost promises or votes the engine is in quarantine, and the directory says so durably.
    """
    nonce = int.from_bytes(os.urandom(8), "little") or 1
    try:
        engine = _replay(store, first_members, config, nonce)
    except StorageError as error:
        if store.quarantine is not None or not store.wal.is_damaged or store.wal.is_foreign:
            raise
        problem = error
        distrust = Quarantine(int(QuarantineReason.QUARANTINE_DAMAGED), str(store.wal.damage))
    else:
        path = store.directory.path
        if engine.fault_code:
            problem = StorageError(
                f"{path}: {engine.fault_text}. Nothing was changed. Do not delete the directory: look at it with "
                "`paxos log verify`, and replace this node if the others are well"
            )
            distrust = Quarantine(int(QuarantineReason.QUARANTINE_DAMAGED), engine.fault_text)
        elif store.is_rolled_back and store.quarantine is None:
            problem = StorageError(
                f"{path}: values had been written behind the present end of the log: it was cut, or restored from an "
                "older copy. This node must not vote: replace it under a new id"
            )
            distrust = Quarantine(
                int(QuarantineReason.QUARANTINE_LOST), "its log ends before its catalogue does"
            )
        else:
            store.seal()
            return engine, engine.effects.take_cold()
    store.distrust(distrust)
    engine = _replay(store, first_members, config, nonce)
    cold = engine.effects.take_cold()
    logged = _newest_configuration(cold, engine)
    if len(first_members if logged is None else logged.members) == 1:
        raise problem  # nobody to learn from: nothing is changed
    store.seal()
    return engine, cold


def _replay(store: Store, first_members: dict[int, str], config: Config, nonce: int) -> Engine:
    identity = store.identity
    engine = Engine(
        identity.node_id,
        identity.cluster_id,
        store.incarnation,
        identity.storage_bytes,
        dict.fromkeys(first_members),
        config,
        nonce=nonce,
    )
    if store.quarantine is not None:
        engine.quarantine(store.quarantine.reason)
    reach("replay.before")
    recover(store.wal, engine)
    reach("replay.after")
    return engine


def _assemble(
    store: Store, engine: Engine, transport: ZmqTransport, members: dict[int, str], config: Config
) -> Parts:
    identity = store.identity
    batcher = Batcher(
        identity.node_id,
        store.incarnation,
        batch_bytes_max=config.batch_bytes_max,
        command_bytes_max=config.command_bytes_max,
        pending_bytes_max=config.pending_bytes_max,
    )
    reactor = Reactor(
        engine,
        store.wal,
        batcher,
        transport.links,
        spin_us=config.spin_us,
        unapplied_bytes_max=config.unapplied_bytes_max,
    )
    control = Control(
        node_id=identity.node_id,
        cluster=identity.cluster_id,
        incarnation=store.incarnation,
        members=members,
        proposer=engine.proposer_role,
        learner=engine.learner_role,
        log=store.log,
        config=config,
        random=Random(),
    )

    scrub = Scrub(
        store.directory.path / "log",
        max(config.scrub_mb_per_s, 1) << 20,
        lambda: int(store.wal.stats()["segment"]),
    )

    def release(clean: bool) -> None:
        try:
            scrub.stop()
            transport.close()
        finally:
            store.close(clean=clean)

    return Parts(
        node_id=identity.node_id,
        cluster=identity.cluster,
        cluster_id=identity.cluster_id,
        incarnation=store.incarnation,
        members=members,
        config=config,
        directory=str(store.directory.path),
        engine=engine,
        batcher=batcher,
        reactor=reactor,
        control=control,
        log=store.log,
        release=release,
        scrub=scrub,
        quarantine=None if store.quarantine is None else store.quarantine.why,
        note_quarantine=lambda reason, why: write_quarantine(store.directory.path, Quarantine(reason, why)),
    )


def _newest_configuration(cold: list[bytes], engine: Engine) -> Configuration | None:
    """Return the configuration in the highest slot that the log holds, chosen or only accepted, if any."""
    found = {
        slot: value
        for slot, (_ballot, kind, value) in engine.acceptor_role.slots.held().items()
        if kind == ValueKind.CONFIGURATION and value
    }
    for frame in cold:
        fields = decode_frame(frame)
        if fields["kind"] == FrameKind.CHOSEN:
            found.setdefault(fields["slot"], fields["payload"])
    return Configuration.decode(found[max(found)]) if found else None


def _members_of(
    node_id: int, given: dict[int, str] | None, logged: Configuration | None, directory: Path
) -> dict[int, str]:
    """Return node id and address of every member: the log says who, the constructor may say where."""
    if logged is None:
        return given if given is not None else {node_id: f"inproc://paxos-{uuid.uuid4().hex}"}
    if given is None:
        members = {member: known.address for member, known in sorted(logged.members.items())}
        if len(members) == 1:  # nobody connects to a node of one
            members = {node_id: f"inproc://paxos-{uuid.uuid4().hex}"}
        return members
    if set(given) != set(logged.members):
        raise ConfigError(
            f"{directory} belongs to a log with the members {sorted(logged.members)}, not {sorted(given)}: "
            "members are changed through the log, not by the constructor; leave members out to take them from there"
        )
    return given


def _listen(node_id: int, members: dict[int, str], bind: str | None, config: Config) -> ZmqTransport:
    transport = ZmqTransport(
        bind or members[node_id],
        advertised=members[node_id],
        value_bytes_max=max(
            config.batch_bytes_max, config.command_bytes_max + BATCH_OVERHEAD_BYTES, PAYLOAD_BYTES_LEAST
        ),
    )
    try:
        for member, address in members.items():
            if member != node_id:
                transport.connect(member, address)
    except BaseException:
        transport.close()
        raise
    return transport
