"""-w table: for the commands that list members and endpoints."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvstore.cli.output import EndpointHash, EndpointHealth, EndpointStatus, as_simple
from kvstore.cli.output.rows import (
    MEMBER_COLUMNS,
    QUOTA_COLUMNS,
    STATUS_COLUMNS,
    member_rows,
    quota_rows,
    status_rows,
)
from kvstore.cli.text import format_duration
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.quota_pb2 import PrefixQuota


class Printer(as_simple.Printer):
    """Settings.printer() lets only these commands through; the rest is there for the type's sake."""

    def member_list(self, response: pb.MemberListResponse) -> bytes:
        return table(MEMBER_COLUMNS, member_rows(response))

    def endpoint_status(self, found: Sequence[EndpointStatus]) -> bytes:
        return table(STATUS_COLUMNS, status_rows(found))

    def endpoint_health(self, found: Sequence[EndpointHealth]) -> bytes:
        rows = [
            [each.endpoint, "true" if each.healthy else "false", format_duration(each.took_s), each.error]
            for each in found
        ]
        return table(("Endpoint", "Health", "Took", "Error"), rows)

    def quotas(self, response: Any, quotas: Sequence[PrefixQuota]) -> bytes:
        return table(QUOTA_COLUMNS, quota_rows(quotas))

    def endpoint_hashkv(self, found: Sequence[EndpointHash]) -> bytes:
        return table(("Endpoint", "Hash"), [[each.endpoint, str(each.response.hash)] for each in found])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    made = Table(box=box.ASCII2, show_edge=True)
    for column in columns:
        made.add_column(
            Text(column.upper(), justify="center"), justify="right", no_wrap=True, header_style=""
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    out = io.StringIO()
    # Wide enough for anything: a table cut to the terminal would lose what it is read for.
    Console(file=out, width=10_000, color_system=None, legacy_windows=False).print(made)
    return out.getvalue().encode()
