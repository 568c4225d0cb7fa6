"""Is a history linearizable? A checker for what clients of a replicated object saw, for tests of any system.

>>> from paxos.sim.linearizability import KeyValue, Recorder, check
>>> recorder = Recorder()
>>> client = recorder.client()
>>> client.invoke("put", "a", key="x").ok()
>>> client.invoke("append", "b", key="x").info()  # a timeout: it may or may not have happened
>>> client.invoke("get", key="x").ok("ab")
>>> client.invoke("get", key="x").ok("a")  # now we know that it did
>>> result = check(recorder.history(), KeyValue())
>>> bool(result)
False

``python -m paxos.sim.linearizability --model key-value FILE…`` does the same for files; `docs/testing.md` tells
how to read the answer. `check` searches for an order that explains the history; `check_slots` believes what
the clients were told about the log, and takes only linear time.
"""

from paxos.sim.linearizability.checker import Result, Verdict, check
from paxos.sim.linearizability.files import load, parse
from paxos.sim.linearizability.models import (
    MODELS,
    REFUSED,
    CasRegister,
    KeyValue,
    ListAppend,
    Model,
    Mutex,
    OwnedMutex,
    Register,
)
from paxos.sim.linearizability.operations import MISSING, UNKNOWN, Event, History, MalformedHistory, Operation
from paxos.sim.linearizability.recorder import Client, Invocation, Recorder
from paxos.sim.linearizability.shrink import Counterexample
from paxos.sim.linearizability.slots import SlotResult, check_slots

__all__ = [
    "MISSING",
    "MODELS",
    "REFUSED",
    "UNKNOWN",
    "CasRegister",
    "Client",
    "Counterexample",
    "Event",
    "History",
    "Invocation",
    "KeyValue",
    "ListAppend",
    "MalformedHistory",
    "Model",
    "Mutex",
    "Operation",
    "OwnedMutex",
    "Recorder",
    "Register",
    "Result",
    "SlotResult",
    "Verdict",
    "check",
    "check_slots",
    "load",
    "parse",
]
