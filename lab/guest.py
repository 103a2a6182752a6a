# SPDX-License-Identifier: GPL-2.0-only
"""A machine in QEMU, emulated in every instruction, that is stopped and dumped when it says so."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.packages import LabError

#: The dump formats of QEMU that are made, with the names of their files.
FORMATS = {"elf": "vmcore.elf", "kdump-zlib": "vmcore.kdump"}
_READY = b"recorded"
_BAD = (b"failed:", b"Kernel panic")
_ANSWER = 120.0


@dataclass(frozen=True)
class Machine:
    """How the machine is made: MiB of memory, processors, and whether it has two nodes."""

    memory: int = 128
    processors: int = 1
    nodes: int = 1
    parameters: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """What QEMU is told of it."""
        words = ["-machine", "q35,accel=tcg", "-cpu", "max", "-smp", str(self.processors)]
        words += ["-m", str(self.memory)]
        if self.nodes > 1:
            share = self.memory // self.nodes
            for node in range(self.nodes):
                words += ["-object", f"memory-backend-ram,id=node{node},size={share}M"]
                words += ["-numa", f"node,nodeid={node},memdev=node{node}"]
                words[-1] += f",cpus={node}" if node < self.processors else ""
        return words


@contextmanager
def boot(kernel: Path, initramfs: Path, machine: Machine, directory: Path) -> Iterator[Guest]:
    """A guest that runs until the end of the ``with`` block."""
    control = directory / "control"
    for name in ("control", "console.log", "truth.log"):
        (directory / name).unlink(missing_ok=True)
    command = [
        "qemu-system-x86_64", *machine.arguments(), "-nodefaults", "-no-user-config",
        "-display", "none", "-nic", "none", "-no-reboot", "-device", "vmcoreinfo",
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append",
        " ".join(("console=ttyS0 panic=-1 quiet loglevel=4 init_on_free=1", *machine.parameters)),
        "-serial", "file:console.log", "-serial", "file:truth.log",
        "-qmp", "unix:control,server=on,wait=off",
    ]  # fmt: skip
    try:
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError as error:
        raise LabError("qemu-system-x86_64: not found (Debian: qemu-system-x86)") from error
    try:
        yield Guest(process, directory)
    finally:
        process.kill()
        process.communicate()
        control.unlink(missing_ok=True)


class Guest:
    """A machine that runs in a directory, where its console and its truth are files."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.directory = directory
        self._socket: socket.socket | None = None
        self._lines: Any = None

    def wait(self, seconds: float) -> None:
        """Wait until everything is written down. Raises `LabError` if that does not come."""
        until = time.monotonic() + seconds
        while True:
            console = self._console()
            if _READY in console:
                return
            if self.process.poll() is not None:
                error = self.process.stderr.read() if self.process.stderr else ""
                raise LabError(f"qemu ended ({self.process.returncode}): {error.strip()[-500:]}")
            if any(one in console for one in _BAD) or time.monotonic() > until:
                raise LabError(f"the guest did not come to rest:\n{console[-2000:].decode()}")
            time.sleep(0.02)

    def _console(self) -> bytes:
        try:
            return (self.directory / "console.log").read_bytes()
        except FileNotFoundError:
            return b""

    def ask(self, command: str, **arguments: object) -> Any:
        """Let QEMU do something over its control socket. Raises `LabError` if it refuses."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_ANSWER)
            self._socket.connect(str((self.directory / "control").resolve()))
            self._lines = self._socket.makefile("rw", encoding="utf-8")
            self._lines.readline()
            self.ask("qmp_capabilities")
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"{command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]
        raise LabError(f"{command}: qemu hung up")

    def dump(self, form: str, path: Path) -> Path:
        """Write the memory of the machine, which has to stand still, to a file."""
        path.unlink(missing_ok=True)
        chosen = {} if form == "elf" else {"format": form}
        self.ask("dump-guest-memory", paging=False, protocol=f"file:{path.resolve()}", **chosen)
        return path
