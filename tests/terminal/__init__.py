"""The command ``katcp`` in a terminal; needs the extra "cli", pexpect and pyte."""
