"""A checkout of this repository as a competitor."""

import sys

from worker import measure_imports, parse_options, serve

options = parse_options()
sys.path.insert(0, options.source)
if options.uvloop:
    import asyncio

    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

import tornado  # noqa: E402
from katcp_client import make_workloads  # noqa: E402

import katcp  # noqa: E402

assert katcp.__file__.startswith(options.source), katcp.__file__
workloads = make_workloads()
workloads["import"] = measure_imports("katcp", options.source)
serve(workloads, options.port, {"katcp": katcp.__version__, "tornado": tornado.version})
