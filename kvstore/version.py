"""Two versions: ours, and the etcd release whose API we answer for.

Clients gate features on the second (Kubernetes asks for progress notifications from 3.5.13 on) and parse it as
plain semver, so it carries no suffix. COMPILED: the hot path is C, made of the same source (setup.py).
"""

from __future__ import annotations

from importlib.util import find_spec

VERSION = "0.1.0"
ETCD_VERSION = "3.5.21"
CLUSTER_VERSION = "3.5.0"
_spec = find_spec("kvstore.rpc")
COMPILED = _spec is not None and not str(_spec.origin).endswith(".py")
