"""kvctl: etcdctl's verbs, and announce and route."""
