"""gRPC over HTTP/2: a sans-I/O connection, and the asyncio protocol that drives it."""
