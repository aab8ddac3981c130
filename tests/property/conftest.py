"""How hard hypothesis tries: profile ``ci`` does the same every time, ``long`` never.

Choose with the environment variable HYPOTHESIS_PROFILE or ``--hypothesis-profile``.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}

settings.register_profile("ci", max_examples=500, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=20_000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
