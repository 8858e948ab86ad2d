"""An xDS control plane: Envoy and gRPC clients are told who is ready, over one aggregated stream (ADS).

kinds.py      pure: the four kinds of resources, and a snapshot of all of them
endpoints.py  pure: one service's instances in, its ClusterLoadAssignment out
resources.py  pure: clusters, routes, listeners
catalogue.py  pure: what is known of every service in, snapshots out
pace.py       pure: how long a client that refuses is left alone
sotw.py       pure: one stream, state of the world      delta.py  the same, incremental
wire.py       pure: the protocol's messages, from and to what the streams speak
bootstrap.py  pure: the file that an Envoy or a gRPC client starts with
names.py      host names to addresses
plane.py      what all streams look at                  session.py  one stream's I/O
server.py     the gRPC server around it
"""
