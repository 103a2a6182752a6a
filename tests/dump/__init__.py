# SPDX-License-Identifier: GPL-2.0-only
"""Tests against dumps of real kernels."""
