"""What a client knows, decided without threads, sockets, clocks and loops."""
