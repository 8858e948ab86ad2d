"""The main job as a show: containers announce, a proxy routes, a leader dies, nothing is lost.

python -m kvstore.demo [--keep] [--server PROGRAM]

processes.py  starting, reading and ending other programs     cluster.py  three members on loopback
webserver.py  what is announced                               load.py     requests and writes, counted
proxies.py    the builtin one, and others that are there       hops.py     where the milliseconds go
story.py      what is shown, in order, and whether it was so
"""
