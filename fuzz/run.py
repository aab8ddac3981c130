"""Fuzz one target with atheris: ``python -m fuzz.run TARGET [libFuzzer's options]``.

What is found new is added to ``build/fuzz/TARGET``; the corpus in the repository is only read.
"""

from __future__ import annotations

import pathlib
import sys

import atheris

with atheris.instrument_imports(include=["katcp"]):
    from .targets import TARGETS

CORPUS = pathlib.Path(__file__).parent / "corpus"
FOUND = pathlib.Path("build/fuzz")


def main() -> None:
    name, *options = sys.argv[1:]
    # libFuzzer adds to the first of its directories.
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    artifacts = f"-artifact_prefix={found}-"
    # To merge, libFuzzer starts processes with this command and more options.
    command = f"{sys.executable} -m fuzz.run {name}"
    arguments = [command, artifacts, str(found), str(CORPUS / name), *options]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
