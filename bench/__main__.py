"""Measure this checkout beside its peers: ``tox -e bench``, or ``python -m bench``."""

from .harness.command import main

main()
