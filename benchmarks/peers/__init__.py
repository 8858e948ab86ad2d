"""Other stores that three members replicate, measured beside ours: ZooKeeper, NATS JetStream, PySyncObj."""
