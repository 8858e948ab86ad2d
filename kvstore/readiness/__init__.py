"""Announce: who decides that an instance is ready, and who says so to the store.

instance.py   what is stored about an instance, and under which key
health.py     pure: probe results and exits in, "became ready" and "became unready" out
probes.py     tcp, http and command probes
registrar.py  keeps the store in agreement with what is wanted of one instance
process.py    the command that is run as a child
announcer.py  ties them together
"""
