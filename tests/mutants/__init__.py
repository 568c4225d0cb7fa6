"""Small patches that each break one rule of the protocol, and the command that shows that tests notice.

The patches are data: ``*.toml`` in this directory (:mod:`tests.mutants.patches` reads them). ``python -m
tests.mutants`` applies them one by one to a copy of the tree (:mod:`tests.mutants.__main__`).
"""
