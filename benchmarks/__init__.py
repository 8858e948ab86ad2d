"""Measurements side by side with etcd, in one run, on the same load generator."""
