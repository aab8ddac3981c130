"""katcp 0.9.3 as a competitor."""

import importlib.metadata

from katcp_client import make_workloads
from worker import measure_imports, parse_options, serve

options = parse_options()
workloads = make_workloads()
workloads["import"] = measure_imports("katcp")
serve(
    workloads,
    options.port,
    {name: importlib.metadata.version(name) for name in ("katcp", "tornado")},
)
