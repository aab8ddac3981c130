"""Do what CONTRIBUTING.md says, word for word, in a copy of this checkout.

python contributing.py FOLDER
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    copy = pathlib.Path(sys.argv[1])
    shutil.rmtree(copy, ignore_errors=True)
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(files, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    blocks = re.findall(r"(?:^    .+\n)+", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)
    # The other one is what runs this.
    (commands,) = [block for block in blocks if ".ci/run" not in block]
    done = subprocess.run(["bash", "-ex", "-c", textwrap.dedent(commands)], cwd=copy, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
