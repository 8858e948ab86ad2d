"""etcd's database files, read and written without etcd: bbolt's pages, and the buckets etcd keeps in them."""
