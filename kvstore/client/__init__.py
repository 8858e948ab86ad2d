"""The client library: asyncio, over grpcio."""
