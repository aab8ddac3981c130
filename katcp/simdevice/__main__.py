"""``python -m katcp.simdevice``: a simulated device as a process."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
