"""Runs in a virtual machine, as its service weft-lab-agent: what comes in by the serial port is run, and answered.

{"id": 1, "argv": ["ls"], "stdin": "", "env": {}, "timeout": 60} -> {"id": 1, "code": 0, "out": "...", "err": "..."}

Each request has a thread, so none waits for another. Python's own library is all that it needs.
"""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

PORT = Path("/dev/virtio-ports/weft-lab")
TIMED_OUT = 124


class Agent:
    """The port, and what is said through it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._one_at_a_time = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        """Send one line."""
        line = json.dumps(message).encode() + b"\n"
        with self._one_at_a_time:
            while line:
                line = line[os.write(self._port, line) :]

    def listen(self) -> None:
        """Take what comes, for ever."""
        self.say({"boot": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()})
        rest = b""
        while True:
            said = os.read(self._port, 1 << 16)
            if not said:  # nobody is at the other end: the port has no way to wait for somebody
                time.sleep(0.05)
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                threading.Thread(target=self._answer, args=(json.loads(line),), daemon=True).start()

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            code, out, err = run(request)
        except OSError as error:
            code, out, err = 127, "", str(error)
        self.say({"id": request["id"], "code": code, "out": out, "err": err})


def run(request: dict[str, Any]) -> tuple[int, str, str]:
    """Run a program to its end; what takes longer than it may is killed with all it has started."""
    with subprocess.Popen(
        request["argv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8", **request["env"]},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(request["stdin"], timeout=request["timeout"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return TIMED_OUT, out, f"{err}\nkilled after {request['timeout']} s"
    return process.returncode, out, err


if __name__ == "__main__":
    Agent(os.open(PORT, os.O_RDWR)).listen()
