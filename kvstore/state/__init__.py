"""The replicated state machine: apply, MVCC, watch hub, lessor, alarms, LMDB. Knows no network."""
