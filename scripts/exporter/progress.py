"""Says on stderr how far a long export is."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Callable

STATUS = Path("/proc/self/status")
BYTES = "bytes"


class Progress:
    """Says nothing; what a library caller wants."""

    def start(self, what: str, total: int, unit: str = BYTES) -> Callable[[int], None]:
        """Begins a piece of work of about ``total`` bytes, or of another unit; the function returned is told how many are done."""
        return lambda size: None

    def done(self, what: str) -> None:
        """Ends the piece of work begun last."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Terminal(Progress):
    """One line per piece of work; on a terminal the line counts up while the work is done."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._size, self._unit = 0, BYTES
        self._shown = self._began = 0.0

    def start(self, what: str, total: int, unit: str = BYTES) -> Callable[[int], None]:
        self._began, self._size, self._unit = time.monotonic(), 0, unit

        def advance(size: int) -> None:
            self._size = size
            if self._live and time.monotonic() - self._shown > 0.1:
                self._shown = time.monotonic()
                print(f"\r{what}: {min(100, 100 * size // max(1, total))} %", end="", file=sys.stderr, flush=True)

        return advance

    def done(self, what: str) -> None:
        begin = "\r" if self._live else ""
        size = f"{self._size / 1e6:.1f} MB" if self._unit == BYTES else f"{self._size} {self._unit}"
        size = f"{size} in " if self._size else ""
        print(f"{begin}{what}: {size}{time.monotonic() - self._began:.1f} s", file=sys.stderr)

    def note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr)


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
