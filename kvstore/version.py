"""Two versions: ours, and the etcd release whose API we answer for.

Clients gate features on the second (Kubernetes asks for progress notifications from 3.5.13 on) and parse it as
plain semver, so it carries no suffix.
"""

VERSION = "0.1.0"
ETCD_VERSION = "3.5.21"
CLUSTER_VERSION = "3.5.0"
