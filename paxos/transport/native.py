"""Find the functions of the libzmq that pyzmq itself has loaded, and hand their addresses to the core.

A second copy of libzmq in the process would not know pyzmq's sockets. So nothing is searched for on disk: the
file of pyzmq's own compiled module is opened once more, which gives the handle of what is loaded already, and
symbols are looked up in it and in the libraries that it was linked to. That holds for wheels, which bundle
libzmq, and for builds against the system's.
"""

from __future__ import annotations

import sys

import cffi
import zmq

from paxos._core import links

_PROTOTYPES = """
    int zmq_msg_init(void *message);
    int zmq_msg_init_data(void *message, void *data, size_t size, void *free_function, void *hint);
    int zmq_msg_recv(void *message, void *socket, int flags);
    int zmq_msg_send(void *message, void *socket, int flags);
    int zmq_msg_close(void *message);
    void *zmq_msg_data(void *message);
    size_t zmq_msg_size(const void *message);
    int zmq_msg_more(const void *message);
    int zmq_msg_move(void *destination, void *source);
    int zmq_send(void *socket, const void *data, size_t size, int flags);
    int zmq_errno(void);
    int zmq_getsockopt(void *socket, int option, void *value, size_t *size);
    int zmq_connect(void *socket, const char *address);
    int zmq_disconnect(void *socket, const char *address);
    void zmq_version(int *major, int *minor, int *patch);
"""
_ffi = cffi.FFI()
_ffi.cdef(_PROTOTYPES)
_loaded: object = None


def backend_files() -> list[str]:
    """Return the files of pyzmq's compiled modules that are loaded, the likeliest first."""
    names = [
        name for name in sys.modules if name.startswith("zmq.backend.") and sys.modules[name] is not None
    ]
    names.sort(key=lambda name: (name != "zmq.backend.cython._zmq", "_" not in name.rpartition(".")[2], name))
    files = (getattr(sys.modules[name], "__file__", None) for name in names)
    return [file for file in files if file and not file.endswith((".py", ".pyc"))]


def load() -> dict[str, int]:
    """Return the addresses of libzmq's functions after giving them to the core. Done once per process.

    Raises:
        ImportError: this build of pyzmq does not let its libzmq be reached; the message says what was tried.
    """
    global _loaded
    tried = []
    for file in backend_files():
        try:
            library = _ffi.dlopen(file)
            addresses = {
                name: int(_ffi.cast("uintptr_t", _ffi.addressof(library, name)))
                for name in links.FUNCTION_NAMES
            }
            version = _ffi.new("int[3]")
            library.zmq_version(version, version + 1, version + 2)
        except (OSError, AttributeError) as error:
            tried.append(f"{file}: {error}")
            continue
        if tuple(version) != zmq.zmq_version_info():
            tried.append(f"{file}: libzmq {'.'.join(map(str, version))}, pyzmq uses {zmq.zmq_version()}")
            continue
        links.install(addresses)
        _loaded = library  # never unloaded: the core keeps the addresses
        return addresses
    raise ImportError(
        f"the libzmq inside pyzmq {zmq.__version__} cannot be reached. Install pyzmq 26 or newer for CPython "
        f"(pip install --upgrade pyzmq). Tried: "
        + ("; ".join(tried) or "no compiled module of zmq.backend is loaded")
    )


if _loaded is None:
    load()
