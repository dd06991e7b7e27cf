"""Finds libpi0_edge, loads it once, and turns its statuses into exceptions."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from pathlib import Path
from typing import Any

from ._abi import FUNCTIONS, SHORT_FUNCTIONS, ErrorText
from ._status import Pi0Error
from ._version import __version__

SONAME = "libpi0_edge.so.0.1"
_LOADING = threading.Lock()


def check(status: int, what: str, error: ErrorText | None = None) -> int:
    """Returns a status that is not negative.

    Raises:
        Pi0Error: The status is negative; the text names the call, the status in words, and the details if there are.
    """
    if status >= 0:
        return status
    words = f"{what}: {load().pi0_status_str(status).decode()}"
    if error is not None and error.message:
        words += f": {error.message.decode(errors='replace')}"
    raise Pi0Error(status, words)


class Library:
    """The library's functions by name, each with the types of its arguments.

    Most give up Python's lock while they run; those of `SHORT_FUNCTIONS` keep it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        for handle, functions in ((ctypes.CDLL(path), FUNCTIONS), (ctypes.PyDLL(path), SHORT_FUNCTIONS)):
            for name, arguments in functions.items():
                function = getattr(handle, name)
                function.argtypes, function.restype = arguments, ctypes.c_int32
                setattr(self, name, function)
        short = ctypes.PyDLL(path)
        self.pi0_version, self.pi0_status_str, self.pi0_now_ns = short.pi0_version, short.pi0_status_str, short.pi0_now_ns
        self.pi0_version.restype = self.pi0_status_str.restype = ctypes.c_char_p
        self.pi0_status_str.argtypes = [ctypes.c_int32]
        self.pi0_now_ns.restype = ctypes.c_uint64

    def __getattr__(self, name: str) -> Any:  # for type checkers: the names are set above
        raise AttributeError(f"libpi0_edge has no {name}")


def load() -> Library:
    """Returns the library, loading it at the first call. May be called from any thread.

    It is the file that `PI0_EDGE_LIBRARY` names, if that is set; else the one beside this package, where wheels have
    it; else the system's, by its SONAME.

    Raises:
        ImportError: There is none, it cannot be loaded, or it is of another version than this package works with.
    """
    with _LOADING:
        return _load()


@functools.lru_cache(maxsize=None)
def _load() -> Library:
    named, beside = os.environ.get("PI0_EDGE_LIBRARY"), Path(__file__).with_name(SONAME)
    path = named or (str(beside) if beside.exists() else SONAME)
    try:
        version = _version_of(path)
        if version.split(".")[:2] != __version__.split(".")[:2]:
            raise ImportError(f"{path} is version {version}; this package, pi0_edge {__version__}, needs the same major and minor")
        return Library(path)
    except (OSError, AttributeError) as reason:
        remedy = (
            "correct PI0_EDGE_LIBRARY, which names it" if named
            else "install a wheel of pi0-edge that carries the library, or the library itself (docs/c.md), or name it by PI0_EDGE_LIBRARY"
        )
        raise ImportError(f"libpi0_edge cannot be loaded: {reason}. To fix it, {remedy}") from reason


def _version_of(path: str) -> str:
    function = ctypes.PyDLL(path).pi0_version
    function.restype = ctypes.c_char_p
    version: bytes = function()
    return version.decode()
