# SPDX-License-Identifier: GPL-2.0-only
"""Questions asked of a memory image: who maps a page, what is shared, do both sides agree.

A question never changes the image, and none loops over pages in Python.
"""
