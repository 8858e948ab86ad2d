"""TLS for clients and peers: etcd's flags, contexts from files that may change, and the handshakes themselves."""
