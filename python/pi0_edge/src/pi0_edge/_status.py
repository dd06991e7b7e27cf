"""What became of a call, and the error of one that failed."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What became of a call: 0 is success, positive a condition, negative an error. The C header says when each is."""

    OK = 0
    STALE = 1
    HOLD = 2
    EMPTY = 3
    ERR_NULL = -1
    ERR_HANDLE = -2
    ERR_BUSY = -3
    ERR_THREAD = -4
    ERR_STATE = -5
    ERR_ARGUMENT = -6
    ERR_STRUCT_SIZE = -7
    ERR_SIZE = -8
    ERR_PANIC = -9
    ERR_POISONED = -10
    ERR_FORKED = -11
    ERR_LIMIT = -12
    ERR_FUTURE = -13
    ERR_ORDER = -14
    ERR_IO = -20
    ERR_MANIFEST = -21
    ERR_INTEGRITY = -22
    ERR_LIBRARY = -23
    ERR_PROVIDER = -24
    ERR_GRAPH = -25
    ERR_OBSERVATION = -26
    ERR_NON_FINITE = -27
    ERR_OUT_OF_LIMITS = -28
    ERR_PARITY = -29
    ERR_REALTIME_DENIED = -30
    ERR_RUNTIME = -31
    ERR_ENGINE = -32


class Pi0Error(RuntimeError):
    """An error that libpi0_edge reported: `status` for code that decides, the text for people.

    `status` is a `Status`, or the bare number where the library is newer than this package and has one more.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.status = Status(status) if status in Status._value2member_map_ else status

    def __str__(self) -> str:
        name = self.status.name if isinstance(self.status, Status) else self.status
        return f"{self.args[1]} ({name})"
