"""Measure this checkout against the rivals: ``tox -e bench``, or ``python -m bench``."""

from .harness.command import main

main()
