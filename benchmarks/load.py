"""h2load, the same for every server: it is in C, so what it measures is the server."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from kvstore.pb.etcdserverpb_pb2 import PutRequest


@dataclass(frozen=True)
class Shape:
    """connections, streams in flight on each, and puts in all."""

    connections: int
    streams: int
    puts: int

    def __str__(self) -> str:
        return f"{self.connections} x {self.streams}"


SHAPES = (Shape(1, 1, 2_000), Shape(32, 1, 16_000), Shape(8, 32, 60_000))


@dataclass(frozen=True)
class Result:
    puts_per_s: float
    mean_ms: float


class LoadFailed(Exception):
    """h2load could not be run, or not every put succeeded."""


def put_body(folder: Path, key_bytes: int = 8, value_bytes: int = 256) -> Path:
    """A file with one framed PutRequest."""
    message = PutRequest(key=b"k" * key_bytes, value=b"v" * value_bytes).SerializeToString()
    path = folder / "put.bin"
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


async def drive(endpoint: str, shape: Shape, body: Path) -> Result:
    """Raises LoadFailed."""
    program = shutil.which("h2load")
    if program is None:
        raise LoadFailed("h2load is not installed: apt-get install nghttp2-client")
    process = await asyncio.create_subprocess_exec(
        *(program, "-n", str(shape.puts), "-c", str(shape.connections), "-m", str(shape.streams)),
        *("-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://{endpoint}/etcdserverpb.KV/Put",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out = (await process.communicate())[0].decode()
    rate = re.search(r"^finished in [^,]+, ([\d.]+) req/s", out, re.MULTILINE)
    succeeded = re.search(r"(\d+) succeeded", out)
    mean = re.search(r"^time for request: +\S+ +\S+ +([\d.]+)(us|ms|s) ", out, re.MULTILINE)
    if rate is None or mean is None or succeeded is None or int(succeeded[1]) != shape.puts:
        raise LoadFailed(f"h2load against {endpoint}: {out[-500:]}")
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[mean[2]]
    return Result(float(rate[1]), float(mean[1]) * unit)
