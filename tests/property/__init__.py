"""Tests that play with made-up input, by hypothesis; run with ``tox -e property``."""
