# SPDX-License-Identifier: GPL-2.0-only
"""The stories of defects use the same small machines as the tests of the model's modules do."""

from __future__ import annotations

import sys
from pathlib import Path

MM = Path(__file__).parent.parent / "mm"
if str(MM) not in sys.path:
    sys.path.insert(0, str(MM))
