"""The driver around raft/: node loop, write-ahead log, snapshots, peer transport."""
