"""The state of a client, without threads, sockets, clocks and loops."""
