"""Whole programs that people run on etcd, run here unchanged. Minutes, not seconds: `make programs`."""
