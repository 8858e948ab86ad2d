"""Who is ready (one view), and the drivers that make proxies agree with it.

view.py      pure: a list and the events after it in, the set of ready instances out
follow.py    feeds the view from the store, and hands every new set to a driver
driver.py    what a driver is
builtin.py   the embedded reverse proxy: one request, from instance to instance
  balance.py    pure: whose turn it is             upstreams.py     connections to instances
  ejection.py   pure: who is passed over           exchange.py      what passes between client and instance
  retry.py      pure: what may be sent again       headers.py       what is changed in headers
  frames.py     pure: where websocket frames end   tunnel.py        a websocket
  listener.py   the port, and taking it down       certificates.py  TLS, and files that change
  status.py     what it knows, as JSON and for Prometheus
haproxy_plan.py  pure: HAProxy as it is and as it should be in, commands out
haproxy.py   the runtime API of a real HAProxy
xds/         a control plane for Envoy and gRPC clients
"""
