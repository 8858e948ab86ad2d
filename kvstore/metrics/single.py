"""Metrics of one number without labels: name, kind and meaning. The numbers are in sources.py, under these names.

Names and kinds are etcd's, odd ones too: some totals are gauges there, and some counters do not end in _total.
"""

from __future__ import annotations

G, C = "gauge", "counter"
NO_PROXY = "Always 0: there is no gRPC proxy here."
NO_V2 = "Always 0: there is no v2 store here."

SINGLE: tuple[tuple[str, str, str], ...] = (
    ("etcd_debugging_auth_revision", G, "Revision of users, roles and permissions."),
    ("etcd_debugging_lease_granted_total", C, "Leases granted."),
    ("etcd_debugging_lease_renewed_total", C, "Renewals answered by this member while it led."),
    ("etcd_debugging_lease_revoked_total", C, "Leases ended, by a call or because they ran out."),
    ("etcd_debugging_mvcc_compact_revision", G, "Revision below which history is given up."),
    ("etcd_debugging_mvcc_current_revision", G, "Revision of the last write applied here."),
    ("etcd_debugging_mvcc_db_compaction_keys_total", C, "Superseded versions removed from the database."),
    (
        "etcd_debugging_mvcc_db_compaction_last",
        G,
        "When the last removal ended, in Unix time; 0 before the first.",
    ),
    ("etcd_debugging_mvcc_events_total", C, "Events handed to watchers of this member."),
    ("etcd_debugging_mvcc_keys_total", G, "Keys there are now."),
    ("etcd_debugging_mvcc_pending_events_total", G, "Events collected for watchers and not handed over yet."),
    ("etcd_debugging_mvcc_range_total", C, "Ranges read on this member."),
    ("etcd_debugging_mvcc_slow_watcher_total", G, "Watchers that are behind and read history."),
    ("etcd_debugging_mvcc_total_put_size_in_bytes", G, "Bytes of all keys and values put since the start."),
    ("etcd_debugging_mvcc_watch_stream_total", G, "Watch streams open."),
    ("etcd_debugging_mvcc_watcher_total", G, "Watches on all streams."),
    ("etcd_debugging_server_lease_expired_total", C, "Leases that ran out while this member led."),
    ("etcd_debugging_store_expires_total", C, NO_V2),
    ("etcd_debugging_store_watch_requests_total", C, NO_V2),
    ("etcd_debugging_store_watchers", G, NO_V2),
    ("etcd_disk_defrag_inflight", G, "Always 0: pages are used again in place, and nothing is rewritten."),
    ("etcd_disk_wal_write_bytes_total", G, "Bytes written to the write-ahead log since the start."),
    ("etcd_grpc_proxy_cache_hits_total", G, NO_PROXY),
    ("etcd_grpc_proxy_cache_keys_total", G, NO_PROXY),
    ("etcd_grpc_proxy_cache_misses_total", G, NO_PROXY),
    ("etcd_grpc_proxy_events_coalescing_total", C, NO_PROXY),
    ("etcd_grpc_proxy_watchers_coalescing_total", G, NO_PROXY),
    ("etcd_mvcc_db_open_read_transactions", G, "Read transactions on the database."),
    ("etcd_mvcc_db_total_size_in_bytes", G, "Size of the database file."),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", G, "Bytes of it that hold something."),
    ("etcd_mvcc_delete_total", C, "Deletes applied, of a key or a range."),
    ("etcd_mvcc_put_total", C, "Puts applied, those in transactions too."),
    ("etcd_mvcc_range_total", C, "Ranges read on this member."),
    ("etcd_mvcc_txn_total", C, "Transactions applied or answered."),
    ("etcd_network_client_grpc_received_bytes_total", C, "Bytes from clients, HTTP/2 framing included."),
    ("etcd_network_client_grpc_sent_bytes_total", C, "Bytes to clients, HTTP/2 framing included."),
    ("etcd_server_has_leader", G, "1: this member knows of a leader."),
    ("etcd_server_health_failures", C, "Answers of /health that said no."),
    ("etcd_server_health_success", C, "Answers of /health that said yes."),
    ("etcd_server_heartbeat_send_failures_total", C, "Heartbeats this leader sent late, being too busy."),
    ("etcd_server_is_leader", G, "1: this member leads."),
    ("etcd_server_is_learner", G, "1: this member has no vote."),
    ("etcd_server_leader_changes_seen_total", C, "How often this member heard of another leader."),
    ("etcd_server_learner_promote_successes", C, "Learners promoted while this member led."),
    ("etcd_server_proposals_applied_total", G, "Index of the last log entry applied."),
    ("etcd_server_proposals_committed_total", G, "Index of the last log entry committed."),
    ("etcd_server_proposals_failed_total", C, "Writes given up on: no leader, no majority in time."),
    ("etcd_server_proposals_pending", G, "Writes of this member on their way through the log."),
    ("etcd_server_quota_backend_bytes", G, "Size at which writes are refused; 0: never."),
    ("etcd_server_read_indexes_failed_total", C, "Linearizable reads that were given up."),
    ("etcd_server_slow_apply_total", C, "Log entries that took longer to apply than the warning threshold."),
    ("etcd_server_slow_read_indexes_total", C, "Rounds of linearizable reads that had to be asked again."),
    ("etcd_server_snapshot_apply_in_progress_total", G, "1: a snapshot is being installed."),
    ("os_fd_limit", G, "How many files this process may have open."),
    ("os_fd_used", G, "How many it has."),
    ("process_virtual_memory_max_bytes", G, "How much address space it may use."),
)
