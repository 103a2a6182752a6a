# SPDX-License-Identifier: GPL-2.0-only
"""Opens a crash dump: a drgn program that knows the kernel's types and symbols.

Types come from DWARF that the user names, else from the BTF inside the dump, or in a file beside it
(a dump that was made smaller may have lost it); symbols from the kernel's own table, or likewise
from a file. BTF says nothing of most global variables, so the types of those that are used here
stand in `GLOBALS`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmap.errors import ImageError, MissingFeatureError
from rmap.source.dump.btf import Btf, BtfError, BtfTypes
from rmap.source.dump.guest import KCORE, is_guest, require_kcore, set_guest
from rmap.source.dump.kallsyms import Kallsyms, SymbolError, vmcoreinfo_symbols
from rmap.source.dump.kdumpfile import readable

if TYPE_CHECKING:
    from drgn import FindObjectFlags, Object, Program

#: Types of the global variables that are read here; ``None`` is a function.
GLOBALS: dict[str, str | None] = {
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__highest_present_section_nr": "unsigned long",
    "__per_cpu_offset": "unsigned long [8192]",
    "huge_zero_pfn": "unsigned long",
    "init_mm": "struct mm_struct",
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "init_uts_ns": "struct uts_namespace",
    "mem_section": "struct mem_section **",
    "memory_cgrp_subsys": "struct cgroup_subsys",
    "nr_cpu_ids": "unsigned int",
    "nr_swapfiles": "unsigned int",
    "page_offset_base": "unsigned long",
    "phys_base": "unsigned long",
    "shmem_swaplist": "struct list_head",
    "special_mapping_name": None,
    "super_blocks": "struct list_head",
    "swap_info": "struct swap_info_struct *[32]",
    "vm_committed_as": "struct percpu_counter",
    "vmemmap_base": "unsigned long",
    "vmemmap_populate": None,
    "zero_pfn": "unsigned long",
}
_BTF_MAGIC = b"\x9f\xeb"
#: Where a finder of ours stands among those of drgn: in front, so that a file beside a dump wins.
_FIRST = 0


@dataclass(frozen=True)
class DebugFiles:
    """Files that know the kernel: DWARF, which is used instead of BTF, BTF, and symbols."""

    dwarf: tuple[Path, ...] = ()
    btf: Path | None = None
    symbols: Path | None = None


def sort_debug_files(files: Sequence[Path]) -> DebugFiles:
    """Tell files apart by what they begin with. Raises `ImageError` for one that is none."""
    dwarf: list[Path] = []
    known: dict[str, Path] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                start = file.read(4)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror or error}") from error
        if start == b"\x7fELF":
            dwarf.append(path)
        elif start[:2] == _BTF_MAGIC:
            known["btf"] = path
        elif start[:1] == b"{":
            known["symbols"] = path
        else:
            raise ImageError(
                f"{path}: neither a vmlinux (ELF), nor BTF, nor a JSON object of symbols"
            )
    return DebugFiles(tuple(dwarf), known.get("btf"), known.get("symbols"))


def open_dump(path: Path, debug: Sequence[Path] = ()) -> Program:
    """Open a vmcore (ELF or kdump-compressed), ``/proc/kcore``, or a guest of QEMU.

    Parameters
    ----------
    path
        The dump; ``qmp:/path/to/socket`` or ``qmp:HOST:PORT`` for a paused guest.
    debug
        Files that know its kernel, for a dump that lost what its kernel carried: a vmlinux with
        DWARF, a raw ``.BTF`` section, a JSON object of symbols and their addresses.

    Raises
    ------
    MissingFeatureError
        If drgn is not installed.
    ImageError
        If it is no dump of a Linux kernel, or lacks types or symbols.
    TargetError
        If there is no such guest, or it runs.
    """
    drgn = import_drgn()
    program: Program = drgn.Program()
    if is_guest(path):
        set_guest(program, path)
    elif path == KCORE:
        require_kcore()
        _set_core(program, path)
    else:
        with _explained(path), readable(path) as file:
            _set_core(program, file)
    if not program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise ImageError(f"{path}: a core dump, but not of a Linux kernel (no VMCOREINFO note)")
    return attach(program, str(path), sort_debug_files(debug))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say which dump it is that cannot be read."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _set_core(program: Program, path: Path) -> None:
    try:
        program.set_core_dump(path)
    except OSError:
        raise
    except Exception as error:  # what libkdumpfile says comes as a plain Exception
        raise ImageError(f"{path}: no crash dump that can be read: {_reason(error)}") from error


def import_drgn() -> Any:
    """The module drgn. Raises `MissingFeatureError` if it is not installed."""
    try:
        import drgn
    except ImportError as error:
        raise MissingFeatureError(
            f"reading dumps needs drgn ({error}): pip install 'linux-rmap[dump]'"
        ) from error
    return drgn


def attach(program: Program, name: str, debug: DebugFiles) -> Program:
    """Give a program of a kernel types and symbols; `name` is what errors call it."""
    drgn = import_drgn()
    try:
        if debug.dwarf:
            _load_dwarf(program, debug.dwarf)
            return program
        attach_symbols(program, debug.symbols)
        attach_types(program, debug.btf)
    except (BtfError, LookupError, ValueError, OSError, drgn.FaultError) as error:
        raise ImageError(
            f"{name}: types and symbols of its kernel cannot be read: {_reason(error)}; name its "
            "vmlinux with --debug"
        ) from error
    return program


def _load_dwarf(program: Program, files: Sequence[Path]) -> None:
    """Let drgn use DWARF. Raises ``LookupError`` if it is not that of this kernel."""
    log = logging.getLogger("drgn")
    level = log.level
    # That a file is of another kernel is said below, as an error.
    log.setLevel(logging.ERROR)
    try:
        program.load_debug_info([str(one) for one in files])
    finally:
        log.setLevel(level)
    try:
        program.type("struct page")
    except LookupError:
        names = ", ".join(map(str, files))
        raise LookupError(f"{names} is not of the kernel in the dump, or has no DWARF") from None


def _reason(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error.args[0] if isinstance(error, LookupError) and error.args else error)


def attach_symbols(program: Program, path: Path | None) -> None:
    """Let names be found by the kernel's symbol table, or by a file."""
    import drgn

    if path is None:
        finder = _own_symbols(program)
    else:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(isinstance(at, int) for at in known.values()):
            raise ValueError(f"{path} is no JSON object of names and addresses")
        binding, kind = drgn.SymbolBinding.GLOBAL, drgn.SymbolKind.OBJECT
        finder = drgn.SymbolIndex(
            [drgn.Symbol(name, at, 8, binding, kind) for name, at in known.items()]
        )
    program.register_symbol_finder("rmap", finder, enable_index=_FIRST)


def _own_symbols(program: Program) -> Any:
    """The kernel's own table: that of the running kernel, or the one in its memory."""
    import drgn
    from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

    here = drgn.ProgramFlags.IS_LIVE | drgn.ProgramFlags.IS_LOCAL
    if program.flags & here == here:
        return load_vmlinux_kallsyms(program)
    try:
        return Kallsyms(program, vmcoreinfo_symbols(program["VMCOREINFO"].string_())).find
    except SymbolError:
        # Of other forms of the table drgn may know more, and if not, say so.
        return load_vmlinux_kallsyms(program)


def attach_types(program: Program, path: Path | None) -> BtfTypes:
    """Let types and objects be found by BTF; returns the types, which are made when asked for."""
    if path is None:
        start = program.symbol("__start_BTF").address
        data = program.read(start, program.symbol("__stop_BTF").address - start)
    else:
        data = path.read_bytes()
    types = BtfTypes(program, Btf(data))
    program.register_type_finder("rmap", types.find, enable_index=_FIRST)

    def find(
        program: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        return _find_object(types, name, flags)

    program.register_object_finder("rmap", find, enable_index=_FIRST)
    return types


def _find_object(types: BtfTypes, name: str, flags: FindObjectFlags) -> Object | None:
    """A constant of some enum, or one of `GLOBALS`; ``None`` if it is neither."""
    drgn, program = types.drgn, types.program
    wanted = drgn.FindObjectFlags
    if flags & wanted.CONSTANT:
        constant = types.enumerator(name)
        if constant is not None:
            return constant
    if name not in GLOBALS:
        return None
    kind = GLOBALS[name]
    try:
        address = program.symbol(name).address
    except LookupError:
        return None
    if kind is None:
        function = program.function_type(program.void_type(), [])
        found = drgn.Object(program, function, address=address)
        return found if flags & wanted.FUNCTION else None
    return drgn.Object(program, kind, address=address) if flags & wanted.VARIABLE else None
