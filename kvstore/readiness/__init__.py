"""Announce: who decides that an instance is ready, and who says so to the store.

instance.py   what is stored about an instance, and under which key
health.py     pure: probe results and exits in, "became ready" and "became unready" out
probes.py     tcp, http, gRPC, file and command probes; notify.py what a command says of itself
registrar.py  keeps the store in agreement with what is wanted of one instance
process.py    the command that is run as a child
announcer.py  ties them together

docker.py     pure: what an engine tells of its containers in, the instances there should be out
docker_engine.py, fleet.py, docker_announcer.py  follow the engine, announce many, tie the two together
"""
