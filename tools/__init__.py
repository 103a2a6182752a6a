# SPDX-License-Identifier: GPL-2.0-only
"""What the repository's maintenance needs; each module says how it is run."""
