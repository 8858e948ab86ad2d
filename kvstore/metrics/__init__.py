"""What a member shows of itself to Prometheus, under etcd's names: read when asked for, never pushed or kept."""
