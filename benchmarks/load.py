"""h2load, the same for every server: it is in C, so what it measures is the server."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from benchmarks.figures import percentile
from kvstore.pb.etcdserverpb_pb2 import PutRequest


@dataclass(frozen=True)
class Shape:
    """connections, streams in flight on each, and calls in all."""

    connections: int
    streams: int
    calls: int

    def __str__(self) -> str:
        return f"{self.connections} x {self.streams}"

    @property
    def in_flight(self) -> int:
        return self.connections * self.streams


@dataclass(frozen=True)
class Result:
    per_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


class LoadFailed(Exception):
    """The load could not be made, or not every call succeeded."""


def body(folder: Path, request: Message) -> Path:
    """A file with one framed request."""
    message = request.SerializeToString()
    path = folder / f"{abs(hash(message)):x}.request"
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


def put_request(value_bytes: int = 256) -> PutRequest:
    return PutRequest(key=b"k" * 8, value=b"v" * value_bytes)


async def drive(
    url: str, shape: Shape, request: Path, metadata: Mapping[str, str] | None = None, *, log: bool = False
) -> Result:
    """url: http://ENDPOINT/SERVICE/METHOD. log: look at each call for the percentiles, which otherwise are the
    mean; only sensible at low rates. Raises LoadFailed."""
    program = shutil.which("h2load")
    if program is None:
        raise LoadFailed("h2load is not installed: apt-get install nghttp2-client")
    calls = request.with_suffix(".log")
    calls.unlink(missing_ok=True)
    given = [f"{name}: {value}" for name, value in (metadata or {}).items()]
    headers = [part for header in given for part in ("-H", header)]
    process = await asyncio.create_subprocess_exec(
        *(program, "-n", str(shape.calls), "-c", str(shape.connections), "-m", str(shape.streams)),
        *("-d", str(request), "-H", "content-type: application/grpc", "-H", "te: trailers", *headers),
        *(("--log-file", str(calls)) if log else ()),
        "--npn-list=h2",
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out = (await process.communicate())[0].decode()
    rate = re.search(r"^finished in [^,]+, ([\d.]+) req/s", out, re.MULTILINE)
    succeeded = re.search(r"(\d+) succeeded", out)
    mean = re.search(r"^time for request: +\S+ +\S+ +([\d.]+)(us|ms|s) ", out, re.MULTILINE)
    if rate is None or mean is None or succeeded is None or int(succeeded[1]) != shape.calls:
        raise LoadFailed(f"h2load against {url}: {out[-500:]}")
    mean_ms = float(mean[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[mean[2]]
    if not log:
        return Result(float(rate[1]), mean_ms, mean_ms, mean_ms)
    each = [int(line.split("\t")[2]) / 1000 for line in calls.read_text().splitlines()]
    return Result(float(rate[1]), mean_ms, percentile(each, 0.5), percentile(each, 0.99))
