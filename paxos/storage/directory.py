"""The data directory of one node: who owns it, and that nobody else does.

A directory holds ``lock``, ``identity.json``, ``log/`` (segments) and ``catalogue/`` (LMDB, rebuildable). The
identity is written once, atomically, and checked at every start, because a node that votes with another's
memory, or with none, breaks promises that it does not know of. A directory is made in two steps: the identity
says ``"complete": false`` until the log exists, so a crash in between can be told from a log that was
deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import uuid
import weakref
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paxos._core.crc32c import checksum
from paxos._core.effects import QuarantineReason
from paxos._core.failpoint import reach
from paxos.errors import ConfigError, StorageError
from paxos.storage.owner import log_owner

FORMAT_VERSION = 1
"""Version of the layout of the data directory."""
LMDB_LIB_VERSION = 0
"""LMDB engine of the catalogue: 0.9, whose files every LMDB tool reads."""
IDENTITY_NAME = "identity.json"
LOCK_NAME = "lock"
QUARANTINE_NAME = "quarantine.json"
"""That it exists says that the node of this directory never votes again; see :mod:`paxos.storage.quarantine`."""
_OWN_NAMES = frozenset(
    {
        IDENTITY_NAME,
        IDENTITY_NAME + ".new",
        QUARANTINE_NAME + ".new",
        LOCK_NAME,
        "log",
        "catalogue",
        "lost+found",
    }
)

_open_directories: weakref.WeakSet[DataDirectory] = weakref.WeakSet()


def cluster_id(name: str) -> int:
    """Return the 64-bit id that stands for the cluster ``name`` in every frame and record; never 0.

    >>> cluster_id("paxos") == cluster_id("paxos") != cluster_id("other")
    True
    """
    return int.from_bytes(hashlib.sha256(b"paxos cluster " + name.encode()).digest()[:8], "little") or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose directory it is. ``storage`` is a random UUID: a wiped disk under an old id has another one."""

    node_id: int
    cluster: str
    cluster_id: int
    storage: str
    format_version: int = FORMAT_VERSION
    lmdb_lib_version: int = LMDB_LIB_VERSION
    complete: bool = False

    @property
    def storage_bytes(self) -> bytes:
        """The storage UUID as 16 bytes."""
        return uuid.UUID(self.storage).bytes

    def encode(self) -> bytes:
        """Return the file's content: JSON with its own CRC-32C."""
        fields = asdict(self)
        fields["crc32c"] = checksum(_canonical(fields))
        return json.dumps(fields, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, path: Path) -> Identity:
        """Return the identity in ``data``, the content of ``path``.

        Raises:
            StorageError: it is damaged, or of another format version.
        """
        try:
            fields = json.loads(data)
            stored = fields.pop("crc32c")
            version = int(fields["format_version"])
            damaged = stored != checksum(_canonical(fields))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise _damaged_identity(path) from error
        if damaged:
            raise _damaged_identity(path)
        if version > FORMAT_VERSION:
            raise StorageError(
                f"{path} was written by a newer version (format {version}; this one reads up to "
                f"{FORMAT_VERSION}): upgrade this installation"
            )
        if version < FORMAT_VERSION:
            raise StorageError(
                f"{path} has format {version}; this version reads {FORMAT_VERSION}: start it once with "
                "the release that converts it"
            )
        try:
            identity = cls(**fields)
            if len(identity.storage_bytes) != 16 or not 0 < identity.cluster_id < 1 << 64:
                raise ValueError("inconsistent fields")
        except (TypeError, ValueError, AttributeError) as error:
            raise _damaged_identity(path) from error
        return identity


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


class DamagedIdentity(StorageError):
    """The file says nothing that can be trusted."""


def _damaged_identity(path: Path) -> DamagedIdentity:
    return DamagedIdentity(
        f"{path} is damaged: this node no longer knows who it is and must not vote. Replace it by a new "
        "node id with an empty directory; keep this one for inspection"
    )


def read_identity(path: str | os.PathLike[str]) -> Identity:
    """Return the identity of the data directory ``path`` without locking it.

    Raises:
        ConfigError: there is none.
        StorageError: it is damaged or of another format.
    """
    file = Path(path) / IDENTITY_NAME
    try:
        return Identity.decode(file.read_bytes(), file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{os.fspath(path)!r} is not a data directory: there is no {IDENTITY_NAME}"
        ) from error


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable (D9)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(file: Path, data: bytes) -> None:
    """Replace ``file`` by ``data``: after a crash the old content or the new one is there, whole."""
    fresh = file.with_name(file.name + ".new")
    reach("identity.write")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as out:
            out.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    reach("identity.rename")
    os.replace(fresh, file)
    reach("identity.directory")
    sync_directory(file.parent)


class DataDirectory:
    """An open, locked data directory.

    Args:
        path: created if it does not exist.
        node_id: this node; ``None`` takes the one that the directory was made for (1 for a new one).
        cluster: name of the cluster; ``None`` takes the directory's own (``"paxos"`` for a new one).
        first_cluster_id: cluster id of a new directory; ``None`` derives it from the name. Once written it stays.
        create: make a directory that is missing or empty; if false, that is an error.
        may_observe: open a directory without its log, or without its identity if the log says whose it is, for a
            node that will only learn; :attr:`distrust` then says what is missing. Needs ``node_id``, ``cluster`` and
            ``first_cluster_id``.

    Attributes:
        identity: see :class:`Identity`.
        is_new: the log does not exist yet; call :meth:`mark_complete` when it does.
        distrust: a ``QuarantineReason`` and, in words, why this node must never vote; ``None`` if nothing says so.

    Raises:
        ConfigError: it belongs to another node or cluster, or holds other files.
        StorageError: it is in use, damaged, of another format, or its log is gone.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        node_id: int | None = None,
        cluster: str | None = None,
        first_cluster_id: int | None = None,
        create: bool = True,
        may_observe: bool = False,
    ) -> None:
        self.path = Path(path)
        self.distrust: tuple[int, str] | None = None
        self._may_observe = may_observe
        self._first_cluster_id = first_cluster_id
        self._pid = os.getpid()
        self._lock = -1
        if node_id is not None and not 1 <= node_id <= 0xFFFF:
            raise ConfigError(f"node_id must be 1..65535, not {node_id}")
        self._make(create)
        self._acquire()
        try:
            self.identity = self._load_or_create(node_id, cluster, create)
        except BaseException:
            self.close()
            raise
        _open_directories.add(self)

    @property
    def is_new(self) -> bool:
        """True until :meth:`mark_complete`: the log may still have to be created."""
        return not self.identity.complete

    def mark_complete(self) -> None:
        """Record durably that the log exists: from now on a missing log is damage, not a new node."""
        self.check_process()
        if self.is_new:
            reach("identity.complete")
            identity = replace(self.identity, complete=True)
            write_atomically(self.path / IDENTITY_NAME, identity.encode())
            self.identity = identity

    def restore_identity(self) -> None:
        """Write the identity that the log told; the damaged file stays beside it. After the quarantine is durable."""
        self.check_process()
        file = self.path / IDENTITY_NAME
        if file.exists():
            os.replace(file, file.with_name(IDENTITY_NAME + ".damaged"))
        write_atomically(file, self.identity.encode())

    def check_process(self) -> None:
        """Raise ``StorageError`` in a forked child or after :meth:`close`: neither owns the directory."""
        if os.getpid() != self._pid:
            raise StorageError(
                f"{self.path} was opened by process {self._pid}; a forked child must not use it. Open "
                "replicas after the fork, or use multiprocessing's 'spawn'"
            )
        if self._lock < 0:
            raise StorageError(f"{self.path} is closed")

    def close(self) -> None:
        """Give the lock back. Safe to call twice, and in a forked child."""
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> DataDirectory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _make(self, create: bool) -> None:
        if self.path.is_dir():
            return
        if self.path.exists() or self.path.is_symlink():
            raise ConfigError(f"{self.path} is not a directory; give the replica a directory of its own")
        if not create:
            raise ConfigError(f"there is no data directory at {self.path}")
        try:
            self.path.mkdir(parents=True, mode=0o750, exist_ok=True)
            sync_directory(self.path.parent)
        except OSError as error:
            raise StorageError(f"cannot create {self.path}: {error.strerror}") from error

    def _acquire(self) -> None:
        file = self.path / LOCK_NAME
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise StorageError(
                f"cannot write to {self.path}: {error.strerror}. The replica needs to own its data directory"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StorageError(
                    f"cannot lock {file}: {error.strerror}; use a local file system"
                ) from error
            raise StorageError(
                f"{self.path} is in use by {holder or 'another process'}: every replica needs a "
                "directory of its own; stop the other one first"
            ) from None
        self._lock = descriptor
        with contextlib.suppress(OSError):  # only for the message above
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)

    def _load_or_create(self, node_id: int | None, cluster: str | None, create: bool) -> Identity:
        file = self.path / IDENTITY_NAME
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            told = self._told_by_log(node_id, cluster, f"{file} was missing")
            return told or self._create(file, node_id, cluster, create)
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror}") from error
        try:
            identity = Identity.decode(data, file)
        except DamagedIdentity:
            told = self._told_by_log(node_id, cluster, f"{file} was damaged")
            if told is None:
                raise
            return told
        if node_id is not None and node_id != identity.node_id:
            raise ConfigError(
                f"{self.path} belongs to node {identity.node_id}, not to node {node_id}: give node "
                f"{node_id} its own directory, or start node {identity.node_id} here"
            )
        if cluster is not None and cluster != identity.cluster:
            raise ConfigError(
                f"{self.path} belongs to cluster {identity.cluster!r}, not to {cluster!r}: check the "
                "directory and the cluster name; a directory never changes its cluster"
            )
        if identity.complete and not self._has_segments():
            if self._may_observe:
                self.distrust = (
                    int(QuarantineReason.QUARANTINE_LOST),
                    f"the log of node {identity.node_id} was gone",
                )
                return identity
            raise StorageError(
                f"the log of {self.path} is gone, though node {identity.node_id} had one: it may have "
                "promised what it no longer knows and must not vote. Put the log back, or replace the "
                "node under a new id"
            )
        return identity

    def _told_by_log(self, node_id: int | None, cluster: str | None, why: str) -> Identity | None:
        """Return the identity that the segments prove, if it is the one that the caller expects."""
        owner = log_owner(self.path / "log") if self._may_observe else None
        if owner is None or cluster is None:
            return None
        if (owner.node_id, owner.cluster_id) != (node_id, self._first_cluster_id):
            return None
        self.distrust = (int(QuarantineReason.QUARANTINE_IDENTITY), f"{why}; its log told whose it is")
        return Identity(
            node_id=owner.node_id,
            cluster=cluster,
            cluster_id=owner.cluster_id,
            storage=str(uuid.UUID(bytes=owner.storage)),
            complete=True,
        )

    def _create(self, file: Path, node_id: int | None, cluster: str | None, create: bool) -> Identity:
        if self._has_segments():
            raise StorageError(
                f"{file} is missing, though there is a log: whose it is cannot be known. Put the file "
                "back, or replace the node under a new id with an empty directory"
            )
        strangers = sorted(set(os.listdir(self.path)) - _OWN_NAMES)
        if strangers:
            raise ConfigError(
                f"{self.path} holds other files ({', '.join(strangers[:3])}): give the replica an empty "
                "directory"
            )
        if not create:
            raise ConfigError(f"{self.path} is not a data directory: there is no {IDENTITY_NAME}")
        name = "paxos" if cluster is None else cluster
        identity = Identity(
            node_id=1 if node_id is None else node_id,
            cluster=name,
            cluster_id=cluster_id(name) if self._first_cluster_id is None else self._first_cluster_id,
            storage=str(uuid.uuid4()),
        )
        try:
            write_atomically(file, identity.encode())
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror}") from error
        return identity

    def _has_segments(self) -> bool:
        try:
            return any(
                name.endswith(".segment") and not name.startswith("ready-")
                for name in os.listdir(self.path / "log")
            )
        except FileNotFoundError:
            return False


def _after_fork_in_child() -> None:
    # flock belongs to the open file: a child that kept it would hold the lock after its parent's death.
    for directory in list(_open_directories):
        directory.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
