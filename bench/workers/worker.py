"""The side of a competitor that talks to the driver: a line of JSON in, a line of JSON out.

A worker program makes a table of workloads and gives it to `serve`. A
workload is a generator function: it is given the port of the server, makes
its clients, yields a function ``run(operations, watch)`` and afterwards
stops its clients. ``run`` does that many operations, ``with watch:`` around
what is to be measured.

Standard library only, for Python 3.9: every competitor imports this.
"""

import argparse
import contextlib
import gc
import json
import os
import platform
import subprocess
import sys
import time
import traceback

from lines import GAINS, SAMPLES

IMPORT_PROGRAM = """
import sys, time
sys.path[:0] = sys.argv[2:]
start = time.perf_counter(), time.process_time()
__import__(sys.argv[1])
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


class Stopwatch:
    """Sums up what passes inside ``with watch:``.

    Attributes
    ----------
    amount : float
        Seconds of the wall clock; a workload that measures anything else
        (bytes, lateness) sets it.
    cpu : float
        Seconds of the processor, of all threads of this process.
    """

    def __init__(self):
        self.amount = 0.0
        self.cpu = 0.0

    def __enter__(self):
        self._cpu_start = time.process_time()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.amount += time.perf_counter() - self._start
        self.cpu += time.process_time() - self._cpu_start


def parse_options():
    """Return the options of a worker program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--source", help="checkout whose katcp is measured")
    return parser.parse_args()


def serve(workloads, port, versions):
    """Answer the driver until it closes the pipe."""
    commands = sys.stdin
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    hello = {"workloads": sorted(workloads), "versions": {"python": platform.python_version()}}
    hello["versions"].update(versions)
    print(json.dumps(hello), file=answers)
    with contextlib.ExitStack() as opened:
        run = None
        for line in commands:
            command = json.loads(line)
            try:
                if command["do"] == "open":
                    workload = contextlib.contextmanager(workloads[command["workload"]])
                    run = opened.enter_context(workload(port))
                    answer = {}
                elif command["do"] == "close":
                    opened.close()
                    answer = {}
                else:
                    answer = do_round(run, command["operations"])
            except Exception as error:
                traceback.print_exc()
                answer = {"error": repr(error)}
            print(json.dumps(answer), file=answers)


def do_round(run, operations):
    """Return what one round has taken."""
    gc.collect()
    watch = Stopwatch()
    run(operations, watch)
    return {"amount": watch.amount, "cpu": watch.cpu}


def resident_bytes():
    """Return how much memory this process has, after what can be freed is freed."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_imports(module, *paths):
    """Return the workload "import": *module*, each time in a fresh interpreter."""

    def workload(port):
        def run(operations, watch):
            for _ in range(operations):
                command = [sys.executable, "-I", "-c", IMPORT_PROGRAM, module, *paths]
                wall, cpu = subprocess.check_output(command).split()
                watch.amount += float(wall)
                watch.cpu += float(cpu)

        yield run

    return workload


def measure_codec(parse, serialise, constructor, copy, line_end=b""):
    """Return the workloads that need no connection.

    Parameters
    ----------
    parse, serialise, copy : callable
        From a line to a message, from a message to a line, from a message to another.
    constructor : callable
        From a kind ("request", "reply", "inform"), name, id and arguments to a function
        that makes the message.
    line_end : bytes
        What *parse* wants to see at the end.
    """

    def workload_of(function, items, prepare=lambda item: item):
        """Return the workload that calls *function* with each item, prepared before."""

        def workload(port):
            def run(operations, watch):
                # Never one message twice: what it may have remembered does not count.
                for start in range(0, operations, 1000):
                    end = min(start + 1000, operations)
                    prepared = [prepare(items[i % len(items)]) for i in range(start, end)]
                    with watch:
                        for item in prepared:
                            function(item)

            yield run

        return workload

    workloads = {
        "gains": workload_of(lambda line: serialise(copy(parse(line))), [GAINS + line_end])
    }
    for name, (lines, parts) in SAMPLES.items():
        makers = [constructor(*part) for part in parts]
        workloads["parse-" + name] = workload_of(parse, [line + line_end for line in lines])
        workloads["serialise-" + name] = workload_of(serialise, makers, lambda make: make())
        workloads["build-" + name] = workload_of(lambda make: serialise(make()), makers)
    return workloads
