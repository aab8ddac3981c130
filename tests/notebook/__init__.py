"""Tests that need a kernel of Jupyter; run with ``tox -e notebook``."""
