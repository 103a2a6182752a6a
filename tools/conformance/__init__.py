# SPDX-License-Identifier: GPL-2.0-only
"""The model against real kernels: ``python -m tools.conformance``.

A corpus holds programs and the state in which a kernel ended; the model runs the programs and has
to end in the same state, field by field.
"""
