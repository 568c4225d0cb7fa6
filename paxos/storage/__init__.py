"""What a node keeps on disk: directory and identity, write-ahead log, catalogue, the chosen log."""

from paxos.storage.catalogue import Catalogue
from paxos.storage.directory import DataDirectory, Identity, cluster_id, read_identity
from paxos.storage.log import ChosenLog, MemoryLog
from paxos.storage.store import Store
from paxos.storage.wal import WriteAheadLog

__all__ = [
    "Catalogue",
    "ChosenLog",
    "DataDirectory",
    "Identity",
    "MemoryLog",
    "Store",
    "WriteAheadLog",
    "cluster_id",
    "read_identity",
]
