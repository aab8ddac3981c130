"""Settings of Sphinx.

To build: ``sphinx-build -W --keep-going -b html docs docs/_build``. Warnings
are errors, and a reference to something that does not exist is a warning.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sphinx.pycode import ModuleAnalyzer

import katcp
from katcp.version import __version__

project = "katcp"
author = "the katcp developers"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["katcp.css"]
html_theme_options = {
    "description": "A client library for KATCP",
    "fixed_sidebar": True,
    "page_width": "1060px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html", "relations.html"]}

# `Name` refers to the thing of that name.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    # Types are said in words: "float in seconds", "Message object".
    ("py:class", r".* .*"),
    ("py:class", r"(callable|function|iterable|sequence|mapping|optional|hashable|awaitable)"),
    (
        "py:(class|exc)",
        r"(decorator|coroutine|boolean|these|call|exception|default=None|\{?Message\..*)",
    ),
    # What others document; their pages are not fetched when these are built.
    (r"py:.*", r"(tornado|asyncio|collections|concurrent|logging|IOLoop|IOStream|socket|ssl)\..*"),
    (r"py:.*", r"future\.types\..*"),
]

napoleon_google_docstring = False
napoleon_use_rtype = False
# Types stand in the docstrings.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}

# Public classes say that they are of the public path, where programs find them. Their order,
# and the comments that document attributes, autodoc looks for in the source of that module.
for _path, _parts in {
    "katcp.client": [f"katcp.client.{name}" for name in ("_device", "_async", "_threaded")],
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
    parents = ["katcp", "katcp.core", "katcp.AsyncClient", "katcp.simdevice"]
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


def setup(app):
    app.connect("missing-reference", find_elsewhere)
