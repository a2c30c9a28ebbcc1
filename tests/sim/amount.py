"""How many schedules the tests of this folder try: TRIOSHIM_SCHEDULES, or 2000."""

from __future__ import annotations

import os

SCHEDULES = int(os.environ.get("TRIOSHIM_SCHEDULES", "2000"))
