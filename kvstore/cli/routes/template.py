"""kvctl route template: drive any proxy that is configured by a file."""

from __future__ import annotations

import os
from typing import Any

import click

from kvstore.cli import loop
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Duration, Settings, Verb
from kvstore.cli.routes.shared import common, drive
from kvstore.readiness import console

EPILOG = """\b
Example, for nginx:
  kvctl route template web.conf.j2 --output /etc/nginx/conf.d/web.conf --service web \\
      --check 'nginx -t' --reload 'nginx -s reload'

\b
with web.conf.j2, a Jinja2 template:
  upstream web {
  {% for one in instances %}
    server {{ one.address }} weight={{ one.weight }};
  {% else %}
    server 127.0.0.1:9 down;
  {% endfor %}
  }

An instance has: id, address, protocol, weight, zone, tags, and `address | host` and `address | port`. Those that
drain are in `draining`."""


@click.command("template", cls=Verb, epilog=EPILOG)
@common
@click.argument("template_path", metavar="TEMPLATE")
@click.option(
    "--output", required=True, metavar="FILE", help="What is written, in one step, when it changes."
)
@click.option(
    "--check",
    default="",
    metavar="COMMAND",
    help="Must succeed, or the old file stays. {} in it is the new file, which is not in place by then; "
    "without, it is.",
)
@click.option("--reload", default="", metavar="COMMAND", help="Tells the proxy that the file has changed.")
@click.option(
    "--debounce",
    type=Duration(),
    default="50ms",
    show_default=True,
    help="Changes that come so close together are one.",
)
@click.pass_obj
def template(settings: Settings, /, **options: Any) -> int:
    """Write a file from a template when the ready instances change, and have the proxy read it."""
    console.configure(settings.debug)
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise CommandFailed("templates need Jinja2: pip install 'kvstore[template]'") from None
    folder = os.path.dirname(os.path.abspath(options["output"]))
    if not os.access(folder, os.W_OK):
        raise CommandFailed(f"{folder}: no such folder, or not to be written to")
    return loop.run(_route_template(settings, options))


async def _route_template(settings: Settings, options: dict[str, Any]) -> int:
    from kvstore.routing import template as routing

    try:
        driver = routing.TemplateDriver(
            routing.Settings(
                template=options["template_path"],
                output=options["output"],
                service=options["service"],
                check=options["check"],
                reload=options["reload"],
                debounce_s=options["debounce"],
            )
        )
        routing.render(routing.load(options["template_path"]), options["service"], [])
    except routing.TemplateFailed as problem:
        raise CommandFailed(str(problem)) from None
    return await drive(settings, options, driver)
