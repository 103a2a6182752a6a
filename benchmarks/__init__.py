# SPDX-License-Identifier: GPL-2.0-only
"""Benchmarks: every number in the documentation is printed by one of these."""
