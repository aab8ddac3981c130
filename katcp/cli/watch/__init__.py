"""The subcommand ``katcp watch``."""
