# SPDX-License-Identifier: GPL-2.0-only
"""The guest's file system: busybox, the workload, modules, and the script that starts it all."""

from __future__ import annotations

import gzip
import shutil
import stat
from pathlib import Path

from lab.packages import Kernel, LabError, modules, run

HERE = Path(__file__).parent
#: A swap area in memory, and what gives the dump its VMCOREINFO.
MODULES = ("qemu_fw_cfg", "brd")
_DIRECTORY, _FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755


def build(kernel: Kernel, directory: Path) -> Path:
    """Compile the workload and pack everything; returns the archive. Raises `LabError`."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("busybox: not found (Debian: busybox-static)")
    workload = directory / "workload"
    run("gcc", "-O1", "-static", "-pthread", "-s", "-o", workload, HERE / "workload.c")
    archive = Archive()
    for name in ("bin", "dev", "modules", "proc", "sys"):
        archive.add(name, _DIRECTORY, b"")
    archive.add("bin/busybox", _FILE, Path(busybox).read_bytes())
    archive.add("workload", _FILE, workload.read_bytes())
    archive.add("init", _FILE, (HERE / "init.sh").read_bytes())
    for number, (name, content) in enumerate(modules(kernel, MODULES)):
        archive.add(f"modules/{number:02}-{name}.ko", _FILE, content)
    path = directory / "initramfs.gz"
    path.write_bytes(gzip.compress(archive.finish(), 6, mtime=0))
    return path


class Archive:
    """A cpio archive in the form that the kernel unpacks (Documentation/driver-api/early-userspace
    /buffer-format.rst): the same files make the same bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0

    def add(self, name: str, mode: int, content: bytes) -> None:
        """Add a file or directory."""
        self.count += 1
        data = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        numbers = (self.count, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(data), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + data
        self.parts += [head, b"\0" * (-len(head) % 4), content, b"\0" * (-len(content) % 4)]

    def finish(self) -> bytes:
        """The archive with its end mark."""
        self.add("TRAILER!!!", 0, b"")
        return b"".join(self.parts)
