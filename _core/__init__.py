"""The compiled data plane. Import the public names from :mod:`paxos`, not from here."""
