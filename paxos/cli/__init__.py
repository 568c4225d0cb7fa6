"""The ``paxos`` command: a demonstration, a server, and tools to look at a node and its log."""
