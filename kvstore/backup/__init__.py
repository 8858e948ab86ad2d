"""State out and in: a member's database as etcd's, a data directory out of one, and moving in from a live cluster."""
