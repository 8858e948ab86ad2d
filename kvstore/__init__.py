"""An etcd-compatible coordination store: see docs/architecture.md for the rooms and the way data flows."""
