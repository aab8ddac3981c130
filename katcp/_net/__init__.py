"""One TCP connection."""
