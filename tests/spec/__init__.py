"""An executable specification of Raft with this project's extensions, and the checker that follows a run by it."""
