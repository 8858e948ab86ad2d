"""One file per etcd service: requests in, validated; encoded replies out. Knows no transport."""
