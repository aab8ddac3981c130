"""A checkout of this repository as a competitor; on uvloop where that is installed."""

import asyncio
import contextlib
import importlib
import sys

from worker import measure_imports, parse_options, serve

options = parse_options()
sys.path.insert(0, options.source)

with contextlib.suppress(ImportError):
    asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())

katcp = importlib.import_module("katcp")
tornado = importlib.import_module("tornado")
make_workloads = importlib.import_module("katcp_client").make_workloads

assert katcp.__file__.startswith(options.source), katcp.__file__
workloads = make_workloads()
workloads["import"] = measure_imports("katcp", options.source)
serve(workloads, options.port, {"katcp": katcp.__version__, "tornado": tornado.version})
