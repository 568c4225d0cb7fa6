"""Hostile bytes for everything that reads bytes from outside (:mod:`tests.fuzz.targets`).

CI gives the targets generated and mutated input (``tests/unit/test_hostile_bytes.py``); ``make fuzz`` runs them
for as long as one likes under atheris (:mod:`tests.fuzz.__main__`), which is not installed with the project.
"""
