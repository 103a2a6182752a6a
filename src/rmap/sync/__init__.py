# SPDX-License-Identifier: GPL-2.0-only
"""What the model is built on: simulated CPUs, locks with ranks, points where a CPU may be left.

Everything that one CPU of a real machine can see another do goes through this package: locks,
atomic operations, and the plain fields that the kernel reads or writes without a lock. That makes
two things possible without a second version of any kernel function. With
`rmap.sync.core.Scheduler.checking` on, every lock is checked against the lock order of the
listing's header, and against being left held. With `exploring` on, each such access is a point at
which a simulated CPU can be switched away from (`rmap.sync.explore`). With both off, they cost a
test of a flag.
"""
