# SPDX-License-Identifier: GPL-2.0-only
"""A paused guest of QEMU, by its machine protocol (QMP), and the running kernel's own memory.

drgn reads the memory of a guest through QMP, or faster, over a Unix socket, out of QEMU's own
memory. Before it does, QEMU is asked whether the guest stands still: what is read of one that runs
does not fit together.
"""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

from rmap.errors import ImageError, MissingFeatureError, PrivilegeError, TargetError

SCHEME = "qmp:"
KCORE = Path("/proc/kcore")
#: Seconds that QEMU may take to answer, and lines of events that may come before an answer.
_TIMEOUT = 10.0
_MOST_EVENTS = 1000
_LONGEST_LINE = 1 << 20


def is_guest(path: Path) -> bool:
    """Whether ``qmp:ADDRESS`` is meant; a file of such a name is ``./qmp:...``."""
    return str(path).startswith(SCHEME)


def set_guest(program: Any, path: Path) -> None:
    """Let a program of drgn read the guest of ``qmp:/path/to/socket`` or ``qmp:HOST:PORT``.

    Raises
    ------
    TargetError
        If the guest runs, or nobody answers there.
    MissingFeatureError
        If this drgn cannot do that.
    ImageError
        If it is no Linux that can be read.
    """
    import drgn

    address = str(path).removeprefix(SCHEME)
    if not hasattr(program, "set_qemu_qmp"):
        raise MissingFeatureError("guests by QMP need a newer drgn: pip install -U drgn")
    status = guest_status(address)
    if status == "running":
        raise TargetError(
            f"{path}: the guest runs, and its memory changes while it is read; stop it first "
            "('stop' in QEMU's monitor), and 'cont' it afterwards"
        )
    try:
        program.set_qemu_qmp(address)
    except (OSError, ValueError, drgn.FaultError) as error:
        raise ImageError(f"{path}: {error}") from error
    if not program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise ImageError(
            f"{path}: no VMCOREINFO of a Linux guest: QEMU needs '-device vmcoreinfo', the guest "
            "its module qemu_fw_cfg"
        )


def guest_status(address: str) -> str:
    """What QEMU says its guest does: ``running``, ``paused``, ... Raises `TargetError`."""
    try:
        with closing(_connect(address)) as connection, connection.makefile("rwb") as both:
            stream = cast(BinaryIO, both)
            greeting = _line(stream)
            if "QMP" not in greeting:
                raise TargetError(f"{SCHEME}{address}: who answers there speaks no QMP")
            _ask(stream, "qmp_capabilities", address)
            return str(_ask(stream, "query-status", address).get("status"))
    except TimeoutError as error:
        raise TargetError(
            f"{SCHEME}{address}: no answer in {_TIMEOUT:.0f} s; is another client connected?"
        ) from error
    except OSError as error:
        raise TargetError(f"{SCHEME}{address}: {error.strerror or error}") from error
    except ValueError as error:
        raise TargetError(f"{SCHEME}{address}: what comes from there is no QMP") from error


def _connect(address: str) -> socket.socket:
    """Connect to HOST:PORT, or else to a Unix socket, as drgn tells them apart."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and not host.startswith(("/", ".")):
        return socket.create_connection((host or "localhost", int(port)), _TIMEOUT)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_TIMEOUT)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _line(stream: BinaryIO) -> dict[str, Any]:
    data = stream.readline(_LONGEST_LINE)
    if not data:
        raise ConnectionResetError("the connection was closed")
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return answer


def _ask(stream: BinaryIO, command: str, address: str) -> dict[str, Any]:
    stream.write(json.dumps({"execute": command}).encode() + b"\n")
    stream.flush()
    for _ in range(_MOST_EVENTS):
        answer = _line(stream)
        if "error" in answer:
            raise TargetError(f"{SCHEME}{address}: QEMU refuses {command}: {answer['error']}")
        if "return" in answer:
            return dict(answer["return"])
    raise ValueError("events without end")


def require_kcore(path: Path = KCORE) -> None:
    """Say why the running kernel's memory cannot be read, if it cannot.

    Raises
    ------
    MissingFeatureError
        If there is no such file.
    PrivilegeError
        If it may not be opened.
    """
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError as error:
        raise MissingFeatureError(
            f"{path} is not there: this kernel has no CONFIG_PROC_KCORE, or a container hides it; "
            "without --dump rmap asks /proc instead"
        ) from error
    except PermissionError as error:
        raise PrivilegeError(f"{path}: {error.strerror}: it takes root and CAP_SYS_RAWIO, and a "
                             "kernel that is not locked down") from error  # fmt: skip
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
