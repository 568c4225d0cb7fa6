"""How fast it is, measured against what the machine can do; see ``benchmarks/README.md``.

``python -m benchmarks --help`` for the cluster, ``pytest benchmarks`` for a quick look at every part.
"""
