"""Every block of code in docs/ runs, and the reference names everything public.

Sphinx is not needed here: the pages themselves are built by the tox environment
``docs``, with warnings as errors.
"""

import ast
import doctest
import functools
import importlib
import inspect
import json
import re
import textwrap

import pytest

import katcp
from katcp._state import lifecycle
from katcp._state.lifecycle import EVENTS, MOVES
from katcp.simdevice import SimulatedDevice
from tests.support.snippets import DOCS, PAGES, rest_snippets, run_examples, run_page


def directives(text):
    """Yield the full names of what reST documents by directives."""
    module = ""
    for kind, name in re.findall(r"^ *\.\. (currentmodule|(?:py:|auto)\w+):: (\S+)$", text, re.M):
        if kind == "currentmodule":
            module = name
        elif name.startswith("katcp."):
            yield name
        else:
            yield f"{module}.{name}"


REFERENCE = "".join(path.read_text("utf-8") for path in sorted(DOCS.glob("reference/*.rst")))
DIRECTIVES = set(directives(REFERENCE))
DIFFERENCES = (DOCS / "explanation" / "differences.rst").read_text("utf-8")
RELIABILITY = (DOCS / "explanation" / "reliability.rst").read_text("utf-8")

# All that the reference promises to hold; others may change at any time.
MODULES = [
    "katcp.client",
    "katcp.core",
    "katcp.kattypes",
    "katcp.sampling",
    "katcp.errors",
    "katcp.ioloop_manager",
    "katcp.compat",
    "katcp.inspecting_client",
    "katcp.resource",
    "katcp.resource_client",
    "katcp.simdevice",
    "katcp.cli",
]

# Their examples need no device.
MODULES_WITH_EXAMPLES = [
    "katcp.core",
    "katcp.simdevice",
]


def page_id(path):
    return path.relative_to(DOCS).with_suffix("").as_posix()


# What a client warns of while the code of a page runs, because it is about failures.
WARNINGS = {
    "howto/many-devices": ["Connection refused"],
    "howto/reconnecting": ["closed with error"] * 3,
}

PAGES_WITH_CODE = [path for path in PAGES if any(rest_snippets(path.read_text("utf-8")))]


@pytest.mark.parametrize("path", PAGES_WITH_CODE, ids=page_id)
def test_code_of_page(path, logs):
    # The page itself says how the device is started.
    faults = re.findall(r"katcp simulate --fault (\S+)", path.read_text("utf-8"))
    with SimulatedDevice(faults=faults) as device:
        assert run_page(path, device.address[1]) > 0
    for text in WARNINGS.get(page_id(path), []):
        logs.expect(text)


def test_pages_with_code_are_found():
    assert {"tutorial/first-steps", "explanation/threads", "reference/simdevice"} <= {
        page_id(path) for path in PAGES_WITH_CODE
    }


def test_all_code_is_run():
    """No block of Python stands in a form that is not found."""
    for path in PAGES:
        text = path.read_text("utf-8")
        blocks = [snippet for _, snippet in rest_snippets(text) if isinstance(snippet, str)]
        assert len(blocks) == text.count("code-block:: py")
        assert not re.search(r"::\n\n +(import|from) ", text), path


@pytest.mark.parametrize("name", MODULES_WITH_EXAMPLES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert found
    for test in found:
        run_examples(test.examples, dict(vars(module)), DOCS, test.lineno or 0)


def documented(*names):
    """Return whether the reference has a directive for one of *names*."""
    return not DIRECTIVES.isdisjoint(names)


@pytest.mark.parametrize("name", katcp.__all__)
def test_public_name_is_in_the_reference(name):
    assert documented(f"katcp.{name}")


def public_names(module):
    """Return the names that a module defines itself, or all that it is made to pass on."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("module_name", MODULES)
def test_public_names_of_module_are_in_the_reference(module_name):
    module = importlib.import_module(module_name)
    homes = [module_name, "katcp", "katcp.core", "katcp._runtime.events", "katcp.compat"]
    missing = [
        name
        for name in public_names(module)
        if not documented(*(f"{home}.{name}" for home in homes))
    ]
    assert missing == []


@pytest.mark.parametrize("name", importlib.import_module("katcp.core").__all__)
def test_core_page_lists_name(name):
    page = (DOCS / "reference" / "core.rst").read_text("utf-8")
    assert re.search(rf"katcp\.(\w+\.)?{name}\b", page)


@pytest.mark.parametrize(
    "cls",
    [
        katcp.DeviceClient,
        katcp.AsyncClient,
        katcp.CallbackClient,
        katcp.BlockingClient,
        katcp.Message,
        katcp.MessageParser,
        katcp.ProtocolFlags,
        katcp.Answer,
        katcp.InformStream,
    ],
    ids=lambda cls: cls.__name__,
)
def test_public_methods_have_docstrings(cls):
    """What has none, autodoc leaves out."""
    for name, value in vars(cls).items():
        if not name.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(getattr(cls, name)), name


@pytest.mark.parametrize(
    "cls",
    [katcp.DeviceClient, katcp.AsyncClient, katcp.CallbackClient],
    ids=lambda cls: cls.__name__,
)
def test_members_of_clients_are_in_the_reference(cls):
    """Its pages list them by topic; what one forgets, autodoc leaves out."""
    bases = [base for base in cls.__mro__ if base.__module__ == cls.__module__]
    names = {name for name in vars(cls) if not name.startswith("_")}
    attributes = set(re.findall(r"^ *(\w+) : ", "".join(base.__doc__ for base in bases), re.M))
    assert {
        name
        for name in names - attributes
        if not documented(*(f"katcp.{base.__name__}.{name}" for base in bases))
    } == set()


def test_page_of_threads_lists_every_call():
    page = (DOCS / "reference" / "threads.rst").read_text("utf-8")
    hooks = re.compile(r"notify_|handle_|unhandled_|inform_|next$")
    for cls in (katcp.DeviceClient, katcp.AsyncClient, katcp.CallbackClient):
        for name, value in vars(cls).items():
            if inspect.isfunction(value) and not name.startswith("_") and not hooks.match(name):
                assert f"`{cls.__name__}.{name}`" in page


def test_table_of_moves_agrees_with_the_code():
    page = (DOCS / "explanation" / "states.rst").read_text("utf-8")
    table = page.split("\nState ", 2)[1]
    rows = re.split(r"^``(\w+)``", table, flags=re.MULTILINE)[1:]
    moves = {
        name: set(re.findall(r"\b[A-Z]{5,}\b", row.split("\n\n")[0]))
        for name, row in zip(rows[::2], rows[1::2])
    }
    assert moves == {state.name: {goal.name for goal in goals} for state, goals in MOVES.items()}


# Which way each head of an arrow points: rows down, columns to the right.
ARROWS = {">": (0, 1), "<": (0, -1), "v": (1, 0), "^": (-1, 0)}


def follow(drawing, states, place, step):
    """Return the state that an arrow leads to from *place*, None if there is none that way."""
    head = None
    while True:
        place = (place[0] + step[0], place[1] + step[1])
        mark = drawing.get(place, " ")
        if place in states:
            return states[place] if ARROWS.get(head) == step else None
        if mark == "+":
            turns = [(step[1], step[0]), (-step[1], -step[0])]
            step = next(
                t for t in turns if drawing.get((place[0] + t[0], place[1] + t[1]), " ") != " "
            )
        elif mark != " ":
            head = mark
        elif step[0] or (place[0], place[1] + step[1]) not in drawing:
            return None


def drawn_moves(text):
    """Return the moves that a drawing of boxes and arrows shows."""
    lines = text.splitlines()
    drawing = {
        (y, x): mark for y, line in enumerate(lines) for x, mark in enumerate(line) if mark != " "
    }
    states = {
        (y, x): re.sub("[= ]", "", match[0])
        for y, line in enumerate(lines)
        for match in re.finditer(r"(?:=+ )?[A-Z]+(?: =+)?", line)
        for x in range(*match.span())
    }
    found = {
        (state, follow(drawing, states, place, step))
        for place, state in states.items()
        for step in ARROWS.values()
        if (place[0] + step[0], place[1] + step[1]) not in states
    }
    return {(state, goal) for state, goal in found if goal is not None}


def test_drawing_of_the_states_agrees_with_the_code():
    page = (DOCS / "explanation" / "states.rst").read_text("utf-8")
    drawing = re.search(r"^\.\. diagram:: .+\n\n((?:    .*\n)+)", page, re.MULTILINE)[1]
    assert drawing in lifecycle.__doc__
    assert drawn_moves(drawing) == {
        (state.name, goal.name) for state, goals in MOVES.items() for goal in goals
    }


def test_events_table_agrees_with_the_code():
    page = (DOCS / "explanation" / "states.rst").read_text("utf-8")
    header = re.search(r"^State +running.*$", page, re.MULTILINE)[0]
    events = header.split()[1:]
    columns = [header.index(event) for event in events]
    for state, held in EVENTS.items():
        row = re.search(rf"^{state.name} .*$", page, re.MULTILINE)[0]
        assert {e for e, c in zip(events, columns) if row[c : c + 3] == "yes"} == held


def test_differences_have_names_and_reasons():
    entries = re.findall(r"^([a-z-]+)\n~+\n\n((?:.+\n)+)", DIFFERENCES, re.MULTILINE)
    names = [name for name, _ in entries]
    assert len(names) > 70
    assert len(set(names)) == len(names)
    assert len(names) == len(re.findall(r"^~+$", DIFFERENCES, re.MULTILINE))
    for name, entry in entries:
        fields = re.findall(r"^:(\w+): \S", entry, re.MULTILINE)
        assert fields == ["Before", "Now", "Why", "Test"], name


@functools.cache
def functions_of_tests():
    """Return the tests of this suite, as ``tests/test_x.py::test_name``."""
    tests = DOCS.parent / "tests"
    return {
        f"{path.relative_to(tests.parent).as_posix()}::{node.name}"
        for path in tests.rglob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
    }


def test_differences_name_tests():
    fields = re.findall(r"^:Test: (.+\n(?:    .+\n)*)", DIFFERENCES, re.MULTILINE)
    assert fields
    assert all(re.findall(r"``tests/[^`]+::test_[^`]+``", field) for field in fields)


def test_pages_name_tests_and_files_that_exist():
    text = "".join(path.read_text("utf-8") for path in PAGES)
    tests = set(re.findall(r"``([^`\s]+::test_\w+)``", text))
    assert len(tests) > 70
    assert tests - functions_of_tests() == set()
    files = set(re.findall(r"``((?:tests|bench|fuzz|examples)/[^`:\s]+)``", text))
    assert len(files) > 10
    assert {name for name in files if not (DOCS.parent / name).exists()} == set()


def test_pages_name_environments_that_exist():
    """Named by ``tox -e``, or as the environment of a promise."""
    text = "".join(path.read_text("utf-8") for path in PAGES)
    named = set(re.findall(r"tox -e ([a-z-]+)", text))
    named |= set(re.findall(r"\((?:environment )?``([a-z-]+)``\)", RELIABILITY))
    settings = (DOCS.parent / "tox.ini").read_text("utf-8")
    assert len(named) > 6
    assert named - {"name"} - set(re.findall(r"^\[testenv:([a-z-]+)\]", settings, re.M)) == set()


def test_the_record_of_the_old_client_names_tests_that_exist():
    source = (DOCS.parent / "tests" / "compat" / "test_old_client.py").read_text("utf-8")
    named = set(re.findall(r"\S+\.py::test_\w+", ast.get_docstring(ast.parse(source))))
    assert len(named) > 80
    assert {f"tests/{test}" for test in named} - functions_of_tests() == set()


def test_the_numbered_items_name_differences():
    source = (DOCS.parent / "tests" / "docs" / "test_differences.py").read_text("utf-8")
    table = re.search(r"^==.*==$", ast.get_docstring(ast.parse(source)), re.M | re.S)[0]
    items = dict(re.findall(r"^ ?(\d+)  (.+(?:\n    .+)*)$", table, re.MULTILINE))
    assert list(map(int, items)) == list(range(1, 16))
    names = {name for names in items.values() for name in re.findall(r"[a-z-]+", names)}
    assert names - set(re.findall(r"^([a-z-]+)\n~", DIFFERENCES, re.MULTILINE)) == set()


def test_notebooks_are_kept_without_outputs():
    """What they show is made by whoever runs them: ``tox -e notebook`` does."""
    paths = list(DOCS.glob("notebooks/*.ipynb"))
    assert paths
    for path in paths:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path


def test_every_page_is_reached():
    listed = {
        (path.parent / entry).with_suffix(".rst").resolve()
        for path in PAGES
        for entry in re.findall(r"^   ([a-z_0-9/-]+)$", path.read_text("utf-8"), re.MULTILINE)
    }
    decisions = set(DOCS.glob("decisions/0*.rst"))
    assert {path for path in PAGES if path != DOCS / "index.rst"} <= listed | decisions


@pytest.mark.parametrize(("word", "page"), [("upload", "memory"), ("reconnect", "reconnecting")])
def test_titles_have_the_words_that_people_search_for(word, page):
    title = (DOCS / "howto" / f"{page}.rst").read_text("utf-8").splitlines()[0]
    assert word in title.lower()


def test_code_fits_the_page():
    """A browser shows 80 columns, in a window of 1400 pixels."""
    block = re.compile(
        r"^( *)\.\. code-block:: \w+\n(?: +:.*\n)*\n((?:\1 +.*\n|\n)+)|^(>>> (?:.+\n)+)",
        re.MULTILINE,
    )
    wide = [
        (path.name, line)
        for path in PAGES
        for found in block.finditer(path.read_text("utf-8"))
        for line in textwrap.dedent(found[2] or found[3]).splitlines()
        if len(line) > 80
    ]
    assert wide == []
