"""How hard hypothesis tries: profile ``ci`` does the same every time, ``long`` never.

Choose with the environment variable HYPOTHESIS_PROFILE or ``--hypothesis-profile``.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile(
    "ci", max_examples=500, derandomize=True, deadline=None, database=None, print_blob=True
)
settings.register_profile("long", max_examples=20_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
