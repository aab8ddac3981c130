"""Packaging of katcp; the tools' settings are in pyproject.toml."""

import os
import re

from setuptools import find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*parts):
    with open(os.path.join(HERE, *parts), encoding="utf-8") as file:
        return file.read()


VERSION = re.search(r'^__version__ = "(.+)"$', read("katcp", "version.py"), re.MULTILINE)[1]

TESTS = ["pytest", "pytest-timeout"]
CLI = ["argcomplete>=3.1", "platformdirs>=3", "prompt_toolkit>=3", "rich>=13"]
DOCS = ["sphinx>=7", "furo", "myst-parser", "sphinx-copybutton", "sphinx-design", "pyte", *CLI]
LINT = ["ruff", "import-linter", "codespell"]
TYPES = ["mypy"]

setup(
    name="katcp",
    version=VERSION,
    description="Client library for KATCP, the line protocol of radio telescope hardware",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=find_packages(include=["katcp", "katcp.*"]),
    py_modules=["pytest_katcp"],
    package_data={"katcp": ["py.typed"]},
    python_requires=">=3.9",
    install_requires=["tornado>=6.1", "future"],
    extras_require={
        "cli": CLI,
        "test": TESTS,
        "docs": DOCS,
        "dev": [*CLI, *TESTS, *DOCS, *LINT, *TYPES, "coverage", "numpy", "tox", "trustme"],
    },
    entry_points={
        "console_scripts": ["katcp = katcp.cli:main"],
        "pytest11": ["pytest_katcp = pytest_katcp"],
    },
    keywords="katcp tornado meerkat kat-7 casper fpga telescope",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Pytest",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: 3.15",
        "Topic :: Scientific/Engineering :: Astronomy",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
)
