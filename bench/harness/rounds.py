"""One workload, done by all competitors in turn, round by round.

Whatever else the machine does affects all of them alike, so ratios are taken
within a round and their median is what counts.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import Optional, TextIO

from .competitor import Competitor, Failed, Worker, running
from .placement import place, processors
from .server import Server
from .workloads import Workload


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int
    seconds: float  # of the processor, in one round
    quick: bool


@dataclass
class Series:
    """What one operation has taken one competitor, in each round.

    ``cpu`` stays empty where something else than time is measured.
    """

    amounts: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class Arena:
    """The competitors and the server they meet at."""

    def __init__(self, competitors: list[Competitor], server: Server, log: TextIO) -> None:
        self._server = server
        self._log = log
        self._competitors = {competitor.name: competitor for competitor in competitors}
        self._stack = contextlib.ExitStack()
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Arena:
        for name in self._competitors:
            self._start(name)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def versions(self) -> dict[str, dict[str, str]]:
        """What runs, by competitor."""
        return {name: worker.versions for name, worker in self._workers.items()}

    def measure(self, workload: Workload, plan: Plan) -> dict[str, Series]:
        """Return the series of all competitors that can do *workload*."""
        place(self._server.pid, processors(workload.placement)[0])
        able = [name for name, one in self._workers.items() if workload.task in one.workloads]
        prepared = {name: self._prepare(name, workload, plan) for name in able}
        counts = {name: count for name, count in prepared.items() if count is not None}
        series = {name: Series() for name in counts}
        for turn in range(plan.rounds):
            names = list(counts)
            for position in range(len(names)):
                # Nobody always comes after the same one.
                name = names[(turn + position) % len(names)]
                if not self._play(name, workload, counts[name], series[name]):
                    del counts[name]
        for name in counts:
            self._close(name, workload)
        return {name: one for name, one in series.items() if one.amounts}

    def _prepare(self, name: str, workload: Workload, plan: Plan) -> Optional[int]:
        """Return how many operations a round has; None: it cannot do that."""
        fixed = workload.operations and workload.operations[plan.quick]
        if workload.fresh:
            return fixed
        worker = self._workers[name]
        try:
            self._open(worker, workload)
            if fixed:
                worker.round(fixed)  # to get warm
                return fixed
            return self._calibrate(worker, workload.step, plan.seconds)
        except Failed as failed:
            self._give_up(name, workload, failed)
            return None

    def _calibrate(self, worker: Worker, step: int, seconds: float) -> int:
        """Return the multiple of *step* that fills a round.

        It is found by processor time: on a busy machine the same operations may take any time,
        and a round of too few is all beginning.
        """
        steps = 1
        while True:
            taken = worker.round(steps * step)["cpu"]
            if taken > seconds / 4:
                return max(1, round(steps * seconds / taken)) * step
            steps *= 4

    def _play(self, name: str, workload: Workload, count: int, series: Series) -> bool:
        """Do one round; return whether there may be another."""
        try:
            if workload.fresh:
                taken = self._play_fresh(name, workload, count)
            else:
                taken = self._workers[name].round(count)
        except Failed as failed:
            self._give_up(name, workload, failed)
            return False
        divisor = 1 if workload.whole else count
        series.amounts.append(taken["amount"] / divisor)
        if taken["cpu"]:
            series.cpu.append(taken["cpu"] / divisor)
        return True

    def _play_fresh(self, name: str, workload: Workload, count: int) -> dict[str, float]:
        with running(self._competitors[name], self._server.port, self._log) as worker:
            self._open(worker, workload)
            return worker.round(count)

    def _open(self, worker: Worker, workload: Workload) -> None:
        place(worker.pid, processors(workload.placement)[1])
        worker.open(workload.task)

    def _close(self, name: str, workload: Workload) -> None:
        if not workload.fresh:
            try:
                self._workers[name].close()
            except Failed as failed:
                self._give_up(name, workload, failed)

    def _give_up(self, name: str, workload: Workload, failed: Failed) -> None:
        print(f"{name} cannot do {workload.name}: {failed}; see {self._log.name}", file=sys.stderr)
        self._start(name)

    def _start(self, name: str) -> None:
        """Start the process of a competitor; one that ran before is left to its end."""
        context = running(self._competitors[name], self._server.port, self._log)
        self._workers[name] = self._stack.enter_context(context)
