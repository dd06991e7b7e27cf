"""What every object with a handle of the library has: closing, a context, and being freed when nobody holds it."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Callable, TypeVar

from ._library import check, load
from ._status import Status

_Self = TypeVar("_Self", bound="Handle")


class Handle:
    """An object of the library. Closed by `close`, at the end of a `with`, when nobody holds it, or at exit.

    The library never follows a handle as a pointer: a call after `close` raises `Pi0Error` with
    `Status.ERR_HANDLE`, and one in the child of a fork with `Status.ERR_FORKED`.
    """

    _free: str

    def __init__(self, value: int | None, before: Callable[[], None] = lambda: None) -> None:
        self._handle = value
        self._finalizer = weakref.finalize(self, _release, getattr(load(), self._free), value, before)

    def close(self) -> None:
        """Frees the object; closing again does nothing. May be called from any thread.

        Raises:
            Pi0Error: `Status.ERR_BUSY` if another thread is inside a call with it; nothing was done.
        """
        if not self._finalizer.alive:
            return
        function, value, before = self._finalizer.peek()[2]  # type: ignore[index]
        before()
        status = function(value)
        if status not in (Status.ERR_HANDLE, Status.ERR_FORKED):
            check(status, f"closing the {type(self).__name__}")
        self._finalizer.detach()

    @property
    def closed(self) -> bool:
        """Tells whether the object was closed."""
        return not self._finalizer.alive

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it is a handle of this process")


def _release(function: Callable[[int | None], int], value: int | None, before: Callable[[], None]) -> None:
    """Frees a handle that nobody holds any more, or at exit; there is nobody to tell of a failure."""
    before()
    function(value)
