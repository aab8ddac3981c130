"""Threads and loops; nothing here knows of KATCP."""
