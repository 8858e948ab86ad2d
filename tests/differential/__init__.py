"""Generated calls, given to a real etcd and to a member of ours one by one: the same answers, byte for byte."""
