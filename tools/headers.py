# SPDX-License-Identifier: GPL-2.0-only
"""Write each ``bits.pxd`` of the package from its ``bits.py``: ``python tools/headers.py``.

The compiled modules need the constants as C macros, with the type that keeps all bits. To write
them twice by hand would be to get one of them wrong once. ``--check`` writes
nothing and says what is not current.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = [ROOT / "src" / "rmap" / layer / "bits.py" for layer in ("sync", "mm")]

HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# Made from bits.py by tools/headers.py; do not edit.
from rmap.scalar cimport i32, u64

cdef extern from *:
    '''
"""


def constants(path: Path) -> dict[str, int]:
    """The integer constants of a module of constants, in order."""
    spec = importlib.util.spec_from_file_location("_bits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if type(value) is int}


def macro(name: str) -> str:
    """The C name of a constant: prefixed, lest it meet one of the C library's."""
    return f"RMAP_{name.lstrip('_')}"


def header(values: dict[str, int]) -> str:
    """The text of the ``.pxd``: small values are C ints, so that they mix with signed counts."""
    small = {name for name, value in values.items() if value < 1 << 16}
    defines = "".join(
        f"    #define {macro(name)} {value:#x}{'' if name in small else 'ULL'}\n"
        for name, value in values.items()
    )
    declared = "".join(
        f'    {"i32" if name in small else "u64"} {name} "{macro(name)}"\n' for name in values
    )
    return f"{HEAD}{defines}    '''\n{declared}"


def main(arguments: list[str]) -> int:
    """Write the headers, or with ``--check`` say which is not current; returns the exit status."""
    stale = 0
    for module in MODULES:
        target = module.with_suffix(".pxd")
        text = header(constants(module))
        if "--check" not in arguments:
            target.write_text(text, encoding="utf-8")
        elif target.read_text(encoding="utf-8") != text:
            print(f"{target.relative_to(ROOT)} is not {module.name}'s: run python tools/headers.py")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
