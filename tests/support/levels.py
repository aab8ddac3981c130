"""Print on how many levels the parts of katcp import each other; fail on a cycle or too many.

A part is a package or a module directly in ``katcp``. Level 1 imports no other part.
"""

from __future__ import annotations

import graphlib
import sys

import grimp

MAX_LEVELS = 8


def main() -> int:
    """Print the levels; return 1 if there is a cycle or one level too many."""
    graph = grimp.build_graph("katcp")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    parts: dict[str, set[str]] = {part_of(module): set() for module in imports}
    for module, imported in imports.items():
        parts[part_of(module)] |= {part_of(other) for other in imported} - {part_of(module)}
    try:
        list(graphlib.TopologicalSorter(imports).static_order())
        order = list(graphlib.TopologicalSorter(parts).static_order())
    except graphlib.CycleError as error:
        print("These import each other:", " <- ".join(error.args[1]))
        return 1
    levels: dict[str, int] = {}
    for part in order:
        levels[part] = 1 + max((levels[other] for other in parts[part]), default=0)
    highest = max(levels.values())
    for level in range(highest, 0, -1):
        print(level, *sorted(part for part in levels if levels[part] == level))
    return highest > MAX_LEVELS


def part_of(module: str) -> str:
    """Return the package or module directly in ``katcp`` that a module belongs to."""
    return ".".join(module.split(".")[:2])


if __name__ == "__main__":
    sys.exit(main())
