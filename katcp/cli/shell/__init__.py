"""The subcommand ``katcp shell``."""
