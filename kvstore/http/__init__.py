"""HTTP/1.1 on the client port: version, health, and later the JSON gateway and metrics."""
