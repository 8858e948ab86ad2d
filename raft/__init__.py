"""The Raft consensus core: pure, deterministic, standard library only. Start with DESIGN.md."""
