"""From ready to routed: real containers, members, routers and proxies, and every hop between them timed.

rows.py       pure: what was measured, its percentiles, what is wanted of it
hops.py       pure: moments in, hops out
tables.py     the terminal, the page                     pictures.py   the same to look at
stage.py      a cluster, and programs around it          proxies.py    what is driven
container.py  a server that says READY=1 when it is told to, and client.py, who asks; grpc_*.py, for a gRPC service
announcing.py ready.py dying.py steady.py crowd.py (crowd_side.py)   the measurements, one each
case.py       the suite's own case: announce to routed through the builtin proxy
"""
