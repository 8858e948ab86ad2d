"""gRPC reflection with grpcio's own reflection client: a call made without any of this project's protos."""

from __future__ import annotations

import subprocess
import sys

from tests.conformance.etcd_process import running_cluster

# In a process of its own: the client's generated files declare the same names as ours.
CLIENT = """
import sys
import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

assert not any(name.startswith("kvstore") for name in sys.modules)
channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
print(*sorted(database.get_services()))
pool = descriptor_pool.DescriptorPool(database)
kv = pool.FindServiceByName("etcdserverpb.KV")

def call(name, **fields):
    method = kv.FindMethodByName(name)
    request = message_factory.GetMessageClass(method.input_type)(**fields)
    reply = message_factory.GetMessageClass(method.output_type)
    path = f"/{kv.full_name}/{name}"
    return channel.unary_unary(path, type(request).SerializeToString, reply.FromString)(request)

call("Put", key=b"foo", value=b"bar")
print(call("Range", key=b"foo").kvs[0].value.decode())
for service in database.get_services():
    pool.FindServiceByName(service)
"""


def test_a_client_that_knows_no_protos() -> None:
    with running_cluster("kvstore") as cluster:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, cluster.endpoints[0]],
            capture_output=True,
            text=True,
            timeout=30,
            cwd="/",
        )
    assert done.returncode == 0, done.stderr
    services, value = done.stdout.splitlines()
    assert {"etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health"} <= set(services.split())
    assert {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= set(
        services.split()
    )
    assert value == "bar"
