"""A fuzzer for what reads bytes from the network; see README.md."""
