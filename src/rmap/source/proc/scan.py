# SPDX-License-Identifier: GPL-2.0-only
"""The ioctl PAGEMAP_SCAN (since 6.7): where in an address space there is something, and what.

It passes over holes at 0.06 ns a page, where reading them costs 2.5 ns, and it knows which pages
are mapped by a PMD. It tells no page frame numbers, so it does not replace reading.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl

import numpy as np
import numpy.typing as npt

PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4  #: every entry that is neither empty nor present, markers as well
PAGE_IS_HUGE = 1 << 6  #: mapped by a PMD (or PUD): a THP or hugetlb page

#: ``struct page_region``: addresses, first and one past the last, and the categories they have.
REGION = np.dtype([("start", "u8"), ("end", "u8"), ("categories", "u8")])
Regions = npt.NDArray[np.void]

_VECTOR_LENGTH = 1 << 14


class _Argument(ctypes.Structure):
    """``struct pm_scan_arg`` (``include/uapi/linux/fs.h``)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "size",
            "flags",
            "start",
            "end",
            "walk_end",
            "vec",
            "vec_len",
            "max_pages",
            "category_inverted",
            "category_mask",
            "category_anyof_mask",
            "return_mask",
        )
    )


_PAGEMAP_SCAN = 3 << 30 | ctypes.sizeof(_Argument) << 16 | ord("f") << 8 | 16
#: What a kernel answers that does not know the ioctl, or not all that is asked of it.
_UNKNOWN = {errno.ENOTTY, errno.EINVAL}


def scan(pagemap: int, start: int, end: int, categories: int) -> Regions | None:
    """Return the regions of pages with any of ``categories``, ascending.

    Parameters
    ----------
    pagemap
        File descriptor of ``/proc/PID/pagemap``.
    start, end
        Addresses, page aligned.
    categories
        ``PAGE_IS_`` bits; ``categories`` of each region are those of them that it has.

    Returns
    -------
    None if this kernel has no such ioctl. Raises OSError for other failures.
    """
    vector = np.empty(_VECTOR_LENGTH, REGION)
    argument = _Argument(
        size=ctypes.sizeof(_Argument),
        end=end,
        vec=vector.ctypes.data,
        vec_len=_VECTOR_LENGTH,
        category_anyof_mask=categories,
        return_mask=categories,
    )
    found = [np.empty(0, REGION)]
    while start < end:
        argument.start = start
        try:
            count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument)
        except OSError as error:
            if error.errno in _UNKNOWN:
                return None
            raise
        found.append(vector[:count].copy())
        if argument.walk_end <= start:
            raise OSError(errno.EIO, f"PAGEMAP_SCAN does not get beyond {start:#x}")
        start = argument.walk_end
    return np.concatenate(found)
