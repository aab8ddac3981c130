"""The subcommands of the command ``katcp``."""
