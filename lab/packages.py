# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of Debian: which there are, and their files, without installing anything."""

from __future__ import annotations

import lzma
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The smallest kernel that Debian builds for x86-64, and with the fewest modules to load.
_FLAVOUR = "cloud-amd64-unsigned"


class LabError(Exception):
    """Something that the laboratory needs is not there, or did not do what it should."""


@dataclass(frozen=True)
class Kernel:
    """A kernel's files: the image that boots, the modules, and where it comes from."""

    package: str
    version: str
    image: Path
    modules: Path


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints. Raises `LabError` if it fails or is not there."""
    try:
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise LabError(f"{command[0]}: not found") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout).strip().splitlines()[-1:]
        raise LabError(f"{' '.join(map(str, command[:3]))}: {''.join(last)}") from error
    return done.stdout


def newest(series: str) -> str:
    """The package of the newest kernel of a series, ``6.1`` or ``6.12``. Raises `LabError`."""
    pattern = rf"^linux-image-{re.escape(series)}[.][0-9.]+.*-{_FLAVOUR}$"
    names = [line.partition(" ")[0] for line in run("apt-cache", "search", pattern).splitlines()]
    if not names:
        raise LabError(f"apt-cache knows no linux-image-{series}.*-{_FLAVOUR}: apt-get update?")
    return max(names, key=lambda name: [int(one) for one in re.findall(r"\d+", name)])


def fetch(package: str, directory: Path) -> Kernel:
    """Download a package and unpack it below a directory, unless that was done before."""
    directory.mkdir(parents=True, exist_ok=True)
    files = directory / package
    found = list(directory.glob(f"{package}_*.deb"))
    if not found:
        run("apt-get", "download", package, cwd=directory)
        found = list(directory.glob(f"{package}_*.deb"))
    if not found:
        raise LabError(f"apt-get download left no {package}_*.deb")
    if not files.is_dir():
        run("dpkg", "-x", found[0], files)
    images = list(files.glob("boot/vmlinuz-*"))
    modules = [*files.glob("lib/modules/*"), *files.glob("usr/lib/modules/*")]
    if not images or not modules:
        raise LabError(f"{package}: no kernel in it")
    version = run("dpkg-deb", "--field", found[0], "Version").strip()
    return Kernel(package, version, images[0], modules[0])


def modules(kernel: Kernel, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The modules of these names and those that they need, in the order in which they load.

    One that there is not, as what is built into the kernel, is left out.
    """
    done: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done:
            return
        done.add(name)
        content = _module(kernel, name)
        if content is None:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for one in (depends[1].decode() if depends else "").split(","):
            if one:
                yield from load(one)
        yield name, content

    for name in wanted:
        yield from load(name)


def _module(kernel: Kernel, name: str) -> bytes | None:
    for path in sorted(kernel.modules.rglob("*.ko*")):
        if path.name.partition(".")[0].replace("-", "_") == name.replace("-", "_"):
            content = path.read_bytes()
            return lzma.decompress(content) if path.suffix == ".xz" else content
    return None


def main(words: list[str]) -> int:
    """Fetch the newest kernel of a series into a directory; prints the package's name."""
    try:
        series, directory = words
        print(fetch(newest(series), Path(directory)).package)
    except ValueError:
        print("usage: python -m lab.packages SERIES DIR", file=sys.stderr)
        return 2
    except (LabError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
