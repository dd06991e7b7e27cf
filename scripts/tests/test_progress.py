"""What the long commands say while they work: on terminals of two widths, on one that cannot be drawn on, and on a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys
import termios
import threading
import time

import pytest

from exporter.progress import Terminal


def said(monkeypatch, ends: tuple[int, int], work) -> str:
    """What ``work`` writes to stderr, which is the second of two ends."""
    ours, theirs = ends
    chunks = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                chunks.append(chunk)
        except OSError:
            pass  # a terminal that nobody writes to any more

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        work()
    reader.join()
    return b"".join(chunks).decode().replace("\r\n", "\n")


def half(what: str, seconds: float):
    def work() -> None:
        terminal = Terminal()
        terminal.start(what, 100)(50)
        terminal.note("by the way")
        time.sleep(seconds)
        terminal.done(what)

    return work


def terminal(columns: int) -> tuple[int, int]:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return ours, theirs


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("what", ["prefix_prefill", "a long name " * 7])
def test_a_bar_fits_and_is_gone_in_the_end(monkeypatch, columns, what):
    monkeypatch.setenv("TERM", "xterm")
    text = said(monkeypatch, terminal(columns), half(what, 0.5))
    drawn = re.findall(r"\r([^\r]+)\033\[K", text)
    assert drawn and all(len(line) < columns for line in drawn), text
    bar = re.compile(re.escape(what) + r" \[#{5,20}-{5,20}\] 50 %, \d s left")
    assert len(what) > 40 or all(bar.fullmatch(line) for line in drawn), drawn
    assert "note: by the way\n" in text
    assert re.search(r"\r\033\[K" + what + r": 0\.0 MB in 0\.[5-9] s\n$", text), text


def test_elsewhere_lines_come_now_and_then(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    for ends in (terminal(80), os.pipe()):
        text = said(monkeypatch, ends, half("prefix_prefill", 2.2))
        assert re.fullmatch(r"note: by the way\nprefix_prefill: 50 %, 2 s left\nprefix_prefill: 0\.0 MB in 2\.\d s\n", text), text
