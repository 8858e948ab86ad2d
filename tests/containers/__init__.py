"""Announcing with a real Docker engine, started here as root: `make containers`. Minutes, so not in `make test`."""
