# SPDX-License-Identifier: GPL-2.0-only
"""The guardian of `rmap.source.proc.freeze`: a program of its own, run by path.

    python -I -S guardian.py PIPE PIDFD...

It waits at the pipe for the reader's word that all processes were resumed. If the pipe ends
without it, the reader has died, and the guardian resumes them. It imports nothing of rmap, and
runs in a session of its own, so that nothing sent to the reader's group reaches it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

#: What the reader sends when all was resumed, and the guardian when it is ready.
DONE = b"."


def main(arguments: list[str]) -> int:
    """Guard; returns the exit status."""
    pipe, *targets = map(int, arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(sys.stdout.fileno(), DONE)
    if os.read(pipe, 1) != DONE:
        for target in targets:
            # One that has exited needs nothing; one that may not be signalled was not stopped.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(target, signal.SIGCONT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
