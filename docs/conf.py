"""Settings of Sphinx: ``tox -e docs`` builds the pages.

Warnings are errors, and a reference to something that does not exist is a warning.
"""

import logging
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(sys.path[0]))

from diagrams import Diagram
from docutils import nodes
from sphinx.pycode import ModuleAnalyzer
from watch_picture import WatchPicture

import katcp
from katcp.version import __version__

project = "katcp"
author = "the katcp developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"katcp {release}"
toc_object_entries_show_parents = "hide"
html_show_copyright = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["katcp.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00567a", "color-brand-content": "#00628b"},
    "dark_css_variables": {"color-brand-primary": "#6cc4ee", "color-brand-content": "#6cc4ee"},
}
pygments_dark_style = "github-dark"
# Only what is typed is copied: neither prompts nor what is printed.
copybutton_prompt_text = r">>> ?|\.\.\. ?|\$ "
copybutton_prompt_is_regexp = True

# `Name` refers to the thing of that name.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    # Types are said in words: "float in seconds", "Message object".
    ("py:class", r".* .*"),
    (
        "py:class",
        r"(re\.Pattern|enum\.Enum|callable|function|iterable|sequence|mapping|optional"
        r"|hashable|awaitable)",
    ),
    (
        "py:(class|exc)",
        r"(decorator|coroutine|boolean|these|call|exception|default=None|\{?Message\..*)",
    ),
    # What others document; their pages are not fetched when these are built.
    (
        r"py:.*",
        r"(tornado|asyncio|collections|concurrent|logging|threading|IOLoop|IOStream|socket|ssl)\..*",
    ),
    (r"py:.*", r"future\.types\..*"),
]

napoleon_google_docstring = False
napoleon_use_rtype = False
# Types stand in the docstrings.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}

# A style of Pygments makes the root logger write everything from INFO on.
logging.getLogger("katcp").setLevel(logging.WARNING)

# Public classes say that they are of the public path, where programs find them. Their order,
# and the comments that document attributes, autodoc looks for in the source of that module.
for _path, _parts in {
    "katcp.client": [
        f"katcp.client.{name}" for name in ("_device", "_async", "_threaded", "_sensors")
    ],
    "katcp.core": ["katcp._sensor"],
    "katcp.kattypes": ["katcp.kattypes._types", "katcp.kattypes._parameters"],
}.items():
    _whole = ModuleAnalyzer.for_module(_path)
    _whole.analyze()
    for _name in _parts:
        _part = ModuleAnalyzer.for_module(_name)
        _part.analyze()
        _whole.attr_docs.update(_part.attr_docs)
        _whole.tagorder.update(_part.tagorder)


def find_elsewhere(app, env, node, contnode):
    """Resolve a name that a base class has, or that is documented at another path."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.domains["py"], node["reftarget"]
    parents = ["katcp", "katcp.core", "katcp.DeviceClient", "katcp.AsyncClient", "katcp.simdevice"]
    parents += ["katcp.compat", "katcp.resource", "katcp.inspecting_client"]
    cls = getattr(katcp, (node.get("py:class") or "").rpartition(".")[2], None)
    if isinstance(cls, type):
        parents += [f"katcp.{base.__name__}" for base in cls.__mro__]
    names = [f"{parent}.{target}" for parent in parents]
    for name in names:
        if name in domain.objects:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", name, node, contnode
            )
    return None


def collapse_tests(app, doctree):
    """Put the fields "Test" of the differences from katcp 0.9 behind a line to click."""
    for fields in list(doctree.findall(nodes.field_list)):
        name, body = fields[-1]
        if name.astext() == "Test":
            del fields[-1]
            fields["classes"].append("difference")
            tests = nodes.container("", *body, classes=["tests"])
            parent, place = fields.parent, fields.parent.index(fields) + 1
            parent.insert(place, tests)
            parent.insert(place, nodes.raw("", "<details><summary>Tests</summary>", format="html"))
            parent.insert(place + 2, nodes.raw("", "</details>", format="html"))


def setup(app):
    app.connect("doctree-read", collapse_tests)
    app.add_directive("diagram", Diagram)
    app.add_directive("watch-picture", WatchPicture)
    app.connect("missing-reference", find_elsewhere)
