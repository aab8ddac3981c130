"""``python -m katcp.simdevice``: a simulated device as a process."""

import sys

from .device import main

if __name__ == "__main__":
    sys.exit(main())
