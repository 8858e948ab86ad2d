"""Who is ready (one view), and the drivers that make proxies agree with it.

view.py      pure: a list and the events after it in, the set of ready instances out
follow.py    feeds the view from the store, and hands every new set to a driver
driver.py    what a driver is
balance.py   pure: whose turn it is                builtin.py  the embedded reverse proxy
haproxy_plan.py  pure: HAProxy as it is and as it should be in, commands out
haproxy.py   the runtime API of a real HAProxy
xds/         a control plane for Envoy and gRPC clients
"""
