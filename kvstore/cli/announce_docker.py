"""kvctl announce docker: announce this machine's containers by their labels."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

import click

from kvstore.cli.announce_options import TTL_MIN_MS, checking, client_maker, full_address, policy_of, staying
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Settings, Verb
from kvstore.readiness import console
from kvstore.readiness.instance import InvalidInstance, split_address

MISSING = "this needs aiodocker: pip install 'kvstore[docker]'"
SCHEMES = ("unix://", "tcp://", "http://", "https://", "ssh://")
EXAMPLES = """\b
Examples:
  kvctl announce docker
  docker run -d -p 127.0.0.1:8080:80 -l kvstore.service=web -l kvstore.port=80 nginx

\b
  # What is published is reached at this address of the machine, and labels may ask for checks (kvstore.check):
  kvctl announce docker --host 10.0.0.5 --interval 1s

\b
  # Another engine:
  DOCKER_HOST=unix:///run/user/1000/docker.sock kvctl announce docker
"""


@click.command("docker", cls=Verb, epilog=EXAMPLES)
@click.option(
    "--engine",
    default="",
    metavar="URL",
    help="unix:///PATH or tcp://HOST:PORT.  [default: DOCKER_HOST, or this machine's]",
)
@click.option(
    "--host",
    default="",
    metavar="ADDRESS",
    help="Where proxies reach published ports and host networking.  [default: the address this host uses to "
    "reach the store]",
)
@staying
@checking
@click.pass_obj
def docker(settings: Settings, /, **options: Any) -> int:
    """Announce the containers of a Docker engine that are labelled kvstore.service=NAME.

    Each is announced while it runs and its health check, where it has one, is healthy; and withdrawn as soon as it
    is stopped, killed, paused, ends or becomes unhealthy. Further labels: kvstore.port, .network, .id, .protocol,
    .weight, .zone, .tags, .check. While the engine cannot be reached nothing changes.
    """
    console.configure(settings.debug)
    try:
        from kvstore.readiness.docker_announcer import DockerPlan, run
    except ImportError:
        raise CommandFailed(MISSING) from None
    if options["engine"] and not options["engine"].startswith(SCHEMES):
        raise click.BadParameter(
            f"{options['engine']!r} is neither unix:///PATH nor tcp://HOST:PORT", param_hint="'--engine'"
        )
    host = options["host"] or full_address(":1", settings.endpoints, "'--host'").removesuffix(":1")
    try:
        split_address(f"{host}:1")
        plan = DockerPlan(
            engine=options["engine"],
            host=host,
            announcer_host=socket.gethostname(),
            make_client=client_maker(settings),
            policy=policy_of(options),
            check_timeout_s=options["timeout"],
            ttl_ms=max(TTL_MIN_MS, math.ceil(options["ttl"] * 1000)),
            grace_ms=math.ceil(options["grace"] * 1000),
            show_unready=options["show_unready"],
        )
    except InvalidInstance as problem:
        raise click.BadParameter(problem.reason, param_hint="'--host'") from None
    except ValueError as problem:
        raise click.UsageError(str(problem)) from None
    return asyncio.run(run(plan))
