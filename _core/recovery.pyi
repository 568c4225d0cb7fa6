from paxos._core.engine import EngineCore
from paxos._core.wal import Wal

def recover(wal: Wal, engine: EngineCore) -> int: ...
