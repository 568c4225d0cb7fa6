"""Build the compiled core: every module of ``_core/`` is installed as ``paxos._core.<name>``.

Compiler directives live here and nowhere else, because a misspelt one in a file header is silently ignored.
The environment decides how it is built:

* ``PAXOS_DEBUG=1``: bounds checks, extra invariants, no optimisation; ``PAXOS_ASAN=1``: AddressSanitizer;
  ``PAXOS_TSAN=1``: ThreadSanitizer;
* ``PAXOS_BUILD_JOBS=4``: translate and compile so many modules at a time;
* ``PAXOS_ANNOTATE=1``: write Cython's annotated HTML; ``PAXOS_CYTHON_DIR=path``: put generated files there;
* ``PAXOS_PREBUILT=1``: the modules are built in place already, install only the Python files.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("PAXOS_DEBUG") == "1"
SANITIZERS = [
    flag
    for name, flag in (("PAXOS_ASAN", "-fsanitize=address"), ("PAXOS_TSAN", "-fsanitize=thread"))
    if os.environ.get(name) == "1"
]
# Metadata and source distributions need no C.
SOURCES_ONLY = os.environ.get("PAXOS_PREBUILT") == "1" or bool(
    {"sdist", "egg_info", "dist_info"} & set(sys.argv)
)
JOBS = int(os.environ.get("PAXOS_BUILD_JOBS", "1"))

compile_args = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function"]
compile_args += ["-O0", "-g", "-DPAXOS_DEBUG=1"] if DEBUG else ["-O2", "-g1"]
compile_args += SANITIZERS
link_args = ["-pthread", *SANITIZERS]

extensions = [
    Extension(
        f"paxos._core.{source.stem}",
        [source.as_posix()],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sorted(Path("paxos/_core").glob("*.pyx"))
    if not SOURCES_ONLY
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
            "binding": True,
            "legacy_implicit_noexcept": False,
        },
        annotate=os.environ.get("PAXOS_ANNOTATE") == "1",
        build_dir=os.environ.get("PAXOS_CYTHON_DIR"),
        nthreads=JOBS if JOBS > 1 else 0,
        show_all_warnings=False,
    ),
    options={"build_ext": {"parallel": JOBS}},
)
