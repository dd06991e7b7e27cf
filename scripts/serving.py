"""`pi0-edge serve` as a child process, for tests and measurements."""
from __future__ import annotations

import re
import signal
import subprocess
import threading
from pathlib import Path


class Served:
    """A server on a free port. Its stderr is kept."""

    def __init__(self, program: Path, bundle: Path, *options: str) -> None:
        command = [program, "serve", bundle, "--listen", "127.0.0.1:0", "--threads", "1", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        self.port = 0
        for line in self.process.stderr:
            self._lines.append(line)
            if found := re.match(r"listening on ws://.*:(\d+)$", line):
                self.port = int(found[1])
                break
        if not self.port:
            self.process.wait()
            raise RuntimeError(f"the server did not start:\n{self.log()}")
        self._reader = threading.Thread(target=lambda: self._lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def log(self) -> str:
        """What the server has said."""
        return "".join(self._lines)

    def stop(self) -> int:
        """Ends the server as a service manager does; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self._reader.join(timeout=10)
        return status

    def status(self) -> dict[str, int]:
        """Memory in KiB, threads and open files of the server."""
        root = Path(f"/proc/{self.process.pid}")
        fields = dict(re.findall(r"^(VmRSS|RssAnon|Threads):\s+(\d+)", (root / "status").read_text(), re.M))
        return {name: int(value) for name, value in fields.items()} | {"files": len(list((root / "fd").iterdir()))}
