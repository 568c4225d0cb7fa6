# Nothing of it is for Python: intents are the dataclasses of paxos.messages.
