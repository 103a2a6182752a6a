# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Reader-writer semaphores and spinlocks of a simulated machine.

One context runs at a time, so a lock is a counter. What makes it a lock is that asking for one
that is taken waits (and is a `Deadlock` where nobody else runs), that every operation is a point
where a CPU may be switched away from, and that ranks are checked.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import (
        ANY_MODE,
        OP_READ,
        OP_RELEASE,
        OP_TRY,
        READ_MODE,
        WRITE_MODE,
    )
    from rmap.sync.core import (
        assert_held,
        lock_acquired,
        lock_released,
        sched,
        sched_point,
        wait_until,
    )


class RwSem:
    """A rw_semaphore. `count` is -1 with a writer, otherwise the number of readers.

    `rank` is its place in the lock order (`rmap.sync.bits`), `ident` tells it from others of
    that rank.
    """

    def __init__(self, rank: i32, ident: u64) -> None:
        self.rank = rank
        self.ident = ident
        self.count = 0

    def free_for_read(self) -> bool:
        """Whether a reader could have it now."""
        return self.count >= 0

    def free_for_write(self) -> bool:
        """Whether a writer could have it now."""
        return self.count == 0

    def down_read(self) -> i32:
        """Take it for read, waiting for a writer to leave."""
        if sched.exploring or self.count < 0:
            wait_until(self.rank, self.ident, self.free_for_read)
        self.count += 1
        if sched.checking:
            lock_acquired(self.rank, self.ident, READ_MODE, False)
        return 0

    def down_read_trylock(self) -> flag:
        """Take it for read if that needs no waiting; whether it was taken."""
        if sched.exploring:
            sched_point(OP_TRY, self.rank, self.ident)
        if self.count < 0:
            return False
        self.count += 1
        if sched.checking:
            lock_acquired(self.rank, self.ident, READ_MODE, True)
        return True

    def up_read(self) -> i32:
        """Give it back from read."""
        if sched.exploring:
            sched_point(OP_RELEASE, self.rank, self.ident)
        if sched.checking:
            lock_released(self.rank, self.ident, READ_MODE)
        self.count -= 1
        return 0

    def down_write(self) -> i32:
        """Take it for write, waiting until nobody has it."""
        if sched.exploring or self.count != 0:
            wait_until(self.rank, self.ident, self.free_for_write)
        self.count = -1
        if sched.checking:
            lock_acquired(self.rank, self.ident, WRITE_MODE, False)
        return 0

    def down_write_trylock(self) -> flag:
        """Take it for write if nobody has it; whether it was taken."""
        if sched.exploring:
            sched_point(OP_TRY, self.rank, self.ident)
        if self.count != 0:
            return False
        self.count = -1
        if sched.checking:
            lock_acquired(self.rank, self.ident, WRITE_MODE, True)
        return True

    def up_write(self) -> i32:
        """Give it back from write."""
        if sched.exploring:
            sched_point(OP_RELEASE, self.rank, self.ident)
        if sched.checking:
            lock_released(self.rank, self.ident, WRITE_MODE)
        self.count = 0
        return 0

    def downgrade_write(self) -> i32:
        """Turn a write hold into a read hold, letting no other writer in between."""
        if sched.exploring:
            sched_point(OP_RELEASE, self.rank, self.ident)
        if sched.checking:
            lock_released(self.rank, self.ident, WRITE_MODE)
            lock_acquired(self.rank, self.ident, READ_MODE, True)
        self.count = 1
        return 0

    def is_locked(self) -> flag:
        """Whether anybody holds it, in whatever mode (rwsem_is_locked)."""
        if sched.exploring:
            sched_point(OP_READ, self.rank, self.ident)
        return self.count != 0

    def assert_held_write(self) -> i32:
        """Insist that the current context holds it for write. Raises `LockViolation`."""
        return assert_held(self.rank, self.ident, WRITE_MODE)

    def assert_held_any(self) -> i32:
        """Insist that the current context holds it. Raises `LockViolation`."""
        return assert_held(self.rank, self.ident, ANY_MODE)


class SpinLock:
    """A spinlock_t, with `rank` and `ident` as a semaphore has."""

    def __init__(self, rank: i32, ident: u64) -> None:
        self.rank = rank
        self.ident = ident
        self.locked = False

    def is_free(self) -> bool:
        """Whether it could be taken now."""
        return not self.locked

    def lock(self) -> i32:
        """Take it, waiting for its holder."""
        if sched.exploring or self.locked:
            wait_until(self.rank, self.ident, self.is_free)
        self.locked = True
        if sched.checking:
            lock_acquired(self.rank, self.ident, WRITE_MODE, False)
        return 0

    def trylock(self) -> flag:
        """Take it if it is free; whether it was taken."""
        if sched.exploring:
            sched_point(OP_TRY, self.rank, self.ident)
        if self.locked:
            return False
        self.locked = True
        if sched.checking:
            lock_acquired(self.rank, self.ident, WRITE_MODE, True)
        return True

    def unlock(self) -> i32:
        """Give it back."""
        if sched.exploring:
            sched_point(OP_RELEASE, self.rank, self.ident)
        if sched.checking:
            lock_released(self.rank, self.ident, WRITE_MODE)
        self.locked = False
        return 0

    def assert_held(self) -> i32:
        """Insist that the current context holds it. Raises `LockViolation`."""
        return assert_held(self.rank, self.ident, WRITE_MODE)
