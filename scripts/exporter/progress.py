"""What the long commands share: they say on stderr how far they are, and end cleanly when they are told to."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Callable

STATUS = Path("/proc/self/status")
BYTES = "bytes"
INTERRUPTED = 130  # exit status of a command that Ctrl-C ended, as shells have it


def run_command(work: Callable[[Progress], int | None], errors: tuple[type[Exception], ...], quiet: bool = False) -> int:
    """Does the work of a command; returns its exit status. Ctrl-C and SIGTERM unwind it alike, so that it cleans up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Progress() if quiet else Terminal()
    try:
        return work(progress) or 0
    except errors as error:
        progress.close()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.close()
        print("stopped; nothing was written", file=sys.stderr)
        return INTERRUPTED
    finally:
        progress.close()


class Progress:
    """Says nothing; what a library caller wants."""

    def start(self, what: str, total: int, unit: str = BYTES) -> Callable[[int], None]:
        """Begins a piece of work of about ``total`` bytes, or of another unit; the function returned is told how many are done."""
        return lambda size: None

    def done(self, what: str) -> None:
        """Ends the piece of work begun last."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def close(self) -> None:
        """Ends the piece of work begun last, if it did not come to its end."""


class Terminal(Progress):
    """One line for each piece of work that is done. Meanwhile a bar on a terminal; elsewhere a line now and then, the fewer the
    longer it takes. A thread draws, because some of the work says nothing before its end."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawer, self._over, self._drawing = None, threading.Event(), threading.Lock()
        self._size, self._unit, self._began = 0, BYTES, 0.0

    def start(self, what: str, total: int, unit: str = BYTES) -> Callable[[int], None]:
        self.close()
        self._began, self._size, self._unit, self._over = time.monotonic(), 0, unit, threading.Event()
        self._drawer = threading.Thread(target=self._draw, args=(what, total), daemon=True)
        self._drawer.start()

        def advance(size: int) -> None:
            self._size = size

        return advance

    def done(self, what: str) -> None:
        self.close()
        size = f"{self._size / 1e6:.1f} MB" if self._unit == BYTES else f"{self._size} {self._unit}"
        size = f"{size} in " if self._size else ""
        print(f"{what}: {size}{time.monotonic() - self._began:.1f} s", file=sys.stderr)

    def note(self, text: str) -> None:
        with self._drawing:
            print(f"{self._clear()}note: {text}", file=sys.stderr)

    def close(self) -> None:
        if self._drawer:
            self._over.set()
            self._drawer.join()
            self._drawer = None

    def _clear(self) -> str:
        return "\r\033[K" if self._live and self._drawer else ""

    def _draw(self, what: str, total: int) -> None:
        wait = 0.2 if self._live else 2.0
        while not self._over.wait(wait):
            elapsed = time.monotonic() - self._began
            with self._drawing:
                if self._live:
                    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
                    print(f"\r{_line(what, _share(self._size, total), elapsed, columns - 1)}\033[K", end="", file=sys.stderr, flush=True)
                else:
                    wait = max(10.0, elapsed / 4)
                    print(f"{what}: {_figures(_share(self._size, total), elapsed)}", file=sys.stderr)
        print(self._clear(), end="", file=sys.stderr, flush=True)


def _share(done: int, total: int) -> float | None:
    """How much is done, as far as anybody knows."""
    return min(1.0, done / total) if total else None


def _figures(share: float | None, elapsed: float) -> str:
    if not share:
        return f"{elapsed:.0f} s"
    return f"{100 * share:.0f} %, {elapsed * (1 - share) / share:.0f} s left"


def _line(what: str, share: float | None, elapsed: float, columns: int) -> str:
    """One line of at most ``columns``, with a bar where there is room."""
    figures = _figures(share, elapsed)
    room = min(40, columns - len(what) - len(figures) - 4)
    if share is None or room < 10:
        return f"{what}  {figures}"[:columns]
    return f"{what} [{'#' * int(room * share):-<{room}}] {figures}"


class MemoryWatch:
    """Samples the anonymous memory of this process: what it owns, without the pages of mapped files. Linux only."""

    def __init__(self, period: float = 0.005):
        self.peak = 0
        self._period = period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryWatch:
        if STATUS.exists():
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sample(self) -> None:
        while True:
            for line in STATUS.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)
            if self._stop.wait(self._period):
                break
