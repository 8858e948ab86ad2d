"""kvctl announce: run a command, wait until it is ready, say so to the store, and take it back in time."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

import click

from kvstore.cli.announce_options import TTL_MIN_MS, checking, client_maker, full_address, policy_of, staying
from kvstore.cli.announce_traefik import route_of, traefik_options
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Duration, Settings, Verb
from kvstore.readiness import console
from kvstore.readiness.announcer import Plan, run
from kvstore.readiness.health import Policy
from kvstore.readiness.instance import (
    DEFAULT_WEIGHT,
    MAX_WEIGHT,
    Instance,
    InvalidInstance,
    check,
    check_name,
    default_id,
)
from kvstore.readiness.probes import InvalidCheck
from kvstore.readiness.process import CommandNotStarted

DOCKER = "docker"
EXAMPLES = """\b
Examples:
  # A web server is announced as soon as its health page answers, and withdrawn before it is stopped:
  kvctl announce web --address 10.0.0.5:8080 --check /healthz -- ./server --port 8080

\b
  # Something that runs already; this host's own address; its port accepting connections is enough:
  kvctl announce web --address :8080

\b
  # A program made for systemd says itself when it is ready, and that it is alive:
  kvctl announce api --address :8080 --check notify --watchdog 5s -- ./api-server

\b
  # Traefik learns of it too, and sends it what is asked of web.example:
  kvctl announce web --address :8080 --traefik 'Host(`web.example`)' -- ./server --port 8080

\b
  # As the first process of a container, ready when a command says so:
  ENTRYPOINT ["kvctl", "announce", "db", "--address", ":5432", "--check", "cmd:pg_isready -q", "--"]

\b
  # Whatever containers of this host say so in their labels (docker right after announce is no service's name):
  kvctl announce docker
"""


class Announce(Verb):
    """Announces an instance of SERVICE. A word of reserved() right after it is a command of its own, and SERVICE
    anywhere else."""

    def reserved(self) -> dict[str, click.Command]:
        from kvstore.cli.announce_docker import docker

        return {DOCKER: docker}

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] == [DOCKER]:
            command = self.reserved()[DOCKER]
            return command.make_context(f"{info_name} {DOCKER}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command("announce", cls=Announce, epilog=EXAMPLES)
@click.argument("service")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--address",
    required=True,
    metavar="[HOST]:PORT",
    help="Where proxies reach the instance. Without HOST: the address this host uses to reach the store.",
)
@click.option(
    "--check",
    "check_text",
    default="tcp",
    show_default=True,
    metavar="CHECK",
    help="tcp | tcp:HOST:PORT | http(s)://… (2xx and 3xx are ready) | /PATH (the same at --address) | "
    "grpc[:[HOST:PORT][/SERVICE]] (grpc.health.v1 says SERVING) | file:PATH (is there) | cmd:COMMAND (exit status "
    "0) | notify (COMMAND says READY=1 on NOTIFY_SOCKET, as to systemd) | none.",
)
@click.option(
    "--watchdog",
    type=Duration(),
    default=0.0,
    show_default="none",
    help="With --check notify: not ready while WATCHDOG=1 has not come for so long.",
)
@click.option(
    "--id", "name", default=None, help="The instance's name in the service.  [default: its address]"
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Take the name from whoever announces it now, instead of waiting until it is free.",
)
@staying
@checking
@click.option(
    "--weight",
    type=click.IntRange(0, MAX_WEIGHT),
    default=DEFAULT_WEIGHT,
    show_default=True,
    help="Its share of the traffic, against that of the others.",
)
@click.option("--protocol", default="http", show_default=True, help="What it speaks; for whoever routes.")
@click.option("--zone", default="", help="Where it runs; for whoever routes.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option(
    "--drain",
    type=Duration(),
    default="50ms",
    show_default=True,
    help="Between withdrawing the instance and stopping COMMAND.",
)
@click.option(
    "--stop-timeout",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long COMMAND may take to stop before it is killed.",
)
@traefik_options
@click.pass_obj
def announce(settings: Settings, /, service: str, command: tuple[str, ...], **options: Any) -> int:
    """Announce an instance of SERVICE for as long as it is ready.

    COMMAND, when given after --, is started first and stopped last: signals are passed on to it, its exit
    status becomes ours, and the instance is withdrawn before it is stopped and as soon as it exits. When the
    store cannot be reached COMMAND keeps running and announcing is tried again.
    """
    console.configure(settings.debug)
    try:
        check_name("service", service)
        address = full_address(options["address"], settings.endpoints)
        instance = check(
            Instance(
                service=service,
                id=default_id(address) if options["name"] is None else options["name"],
                address=address,
                protocol=options["protocol"],
                weight=options["weight"],
                zone=options["zone"],
                tags=options["tags"],
                host=socket.gethostname(),
            )
        )
    except InvalidInstance as problem:
        raise click.UsageError(str(problem)) from None
    try:
        policy = policy_of(options)
        return asyncio.run(run(_plan(instance, settings, policy, command, options)))
    except (InvalidCheck, ValueError) as problem:
        raise click.UsageError(str(problem)) from None
    except CommandNotStarted as problem:
        raise CommandFailed(str(problem), problem.exit_status) from None


def _plan(
    instance: Instance,
    settings: Settings,
    policy: Policy,
    command: tuple[str, ...],
    options: dict[str, Any],
) -> Plan:
    return Plan(
        instance=instance,
        make_client=client_maker(settings),
        check=options["check_text"],
        check_timeout_s=options["timeout"],
        watchdog_s=options["watchdog"],
        policy=policy,
        ttl_ms=max(TTL_MIN_MS, math.ceil(options["ttl"] * 1000)),
        grace_ms=math.ceil(options["grace"] * 1000),
        drain_s=options["drain"],
        stop_timeout_s=options["stop_timeout"],
        show_unready=options["show_unready"],
        take_over=options["take_over"],
        command=command,
        traefik=route_of(instance, options),
    )
