"""Probes: what each check looks at, and how a probe puts them together."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore import errors
from kvstore.api.context import Context
from kvstore.http import checks as module
from kvstore.http.checks import Check, Checks, probe_routes
from kvstore.http.pages import Page, Query, Route
from kvstore.meters import HealthMeter
from kvstore.pb.etcdserverpb_pb2 import AlarmMember, AlarmType


@dataclass
class Member:
    """As much of one as the checks look at."""

    folder: Path
    leader_id: int = 1
    read_problem: errors.StoreError | None = None
    range_problem: errors.StoreError | None = None
    alarms: list[AlarmMember] = field(default_factory=list)
    over_quota: bool = False
    learners: tuple[int, ...] = ()
    submitted_to: int = 7
    persisted_to: int = 7
    answers: bool = True

    def read(self, done: Any) -> None:
        if self.answers:
            done(self.read_problem)

    def range(self, request: Any) -> None:
        if self.range_problem is not None:
            raise self.range_problem

    @property
    def checks(self) -> Checks:
        (self.folder / "member").mkdir(exist_ok=True)
        machine = SimpleNamespace(alarms=self.alarms, over_quota=self.over_quota, range=self.range, db_size=9)
        self.node = SimpleNamespace(conf=SimpleNamespace(learners=self.learners, learners_next=()))
        config = SimpleNamespace(data_dir=str(self.folder), quota_backend_bytes=8)
        context = SimpleNamespace(config=config, driver=self, machine=machine, member_id=1)
        context.health = HealthMeter()
        return Checks(cast(Context, context))

    async def get(self, path: str, **query: list[str]) -> Page:
        routes = {route.path: route.handler for route in self.checks.routes()}
        return await routes[path](query)


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


def raised(kind: int) -> list[AlarmMember]:
    return [AlarmMember(memberID=1, alarm=AlarmType.Name(kind))]


async def test_all_is_well(member: Member) -> None:
    assert await member.get("/health") == Page('{"health":"true","reason":""}', 200, "application/json")
    for path in ("/livez", "/readyz", "/writez", "/readyz/non_learner"):
        assert await member.get(path) == Page("ok\n")
    verbose = await member.get("/readyz", verbose=[""])
    names = ("data_corruption", "serializable_read", "linearizable_read", "non_learner")
    assert verbose.body == "".join(f"[+]{name} ok\n" for name in names) + "ok\n"
    assert list((member.folder / "member").iterdir()) == []  # the disk's probe leaves nothing behind


async def test_health_in_the_order_of_etcd(member: Member) -> None:
    async def reason(**query: list[str]) -> str:
        page = await member.get("/health", **query)
        body = json.loads(page.body)
        assert (page.status, body["health"]) == ((503, "false") if body["reason"] else (200, "true"))
        return str(body["reason"])

    member.leader_id, member.alarms = 0, raised(AlarmType.NOSPACE) + raised(AlarmType.CORRUPT)
    assert await reason() == "ALARM NOSPACE"
    assert await reason(exclude=["NOSPACE"]) == "ALARM CORRUPT"
    assert await reason(exclude=["NOSPACE", "CORRUPT"]) == "RAFT NO LEADER"
    assert await reason(exclude=["NOSPACE", "CORRUPT"], serializable=["true"]) == ""
    member.leader_id, member.alarms = 1, []
    member.read_problem = errors.RequestTimeout()
    assert await reason() == "RANGE ERROR:etcdserver: request timed out"
    assert await reason(serializable=["true"]) == ""


async def test_what_failed_is_told_with_what_did_not(member: Member) -> None:
    member.alarms, member.learners = raised(AlarmType.CORRUPT), (1,)
    page = await member.get("/readyz")
    assert page.status == 503 and page.body == (
        "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n"
        "[+]linearizable_read ok\n[-]non_learner failed: not supported for learner\n\n"
    )
    assert (await member.get("/livez")).status == 200
    assert (await member.get("/readyz/serializable_read")).status == 200
    assert (await member.get("/readyz/data_corruption")).status == 503


async def test_exclude_and_allowlist(member: Member) -> None:
    member.alarms, member.learners = raised(AlarmType.CORRUPT), (1,)
    both = ["data_corruption", "non_learner"]
    assert (await member.get("/readyz", exclude=both)).status == 200
    assert (await member.get("/readyz", exclude=both[:1])).status == 503
    assert (await member.get("/readyz", exclude=["unheard_of", *both])).status == 200
    assert (await member.get("/readyz", allowlist=["linearizable_read"])).status == 200
    assert (await member.get("/readyz", allowlist=both)).status == 503
    assert (await member.get("/readyz", allowlist=["unheard_of"])).status == 400
    assert (await member.get("/readyz", allowlist=both, exclude=both)).status == 400


async def test_livez_is_about_this_member_alone(member: Member) -> None:
    member.leader_id, member.answers = 0, False
    assert (await member.get("/livez")).status == 200
    member.range_problem = errors.Corrupt()
    assert (await member.get("/livez")).body == "[-]serializable_read failed: etcdserver: corrupt cluster\n\n"


async def test_a_write_needs_a_leader_space_and_sound_data(member: Member) -> None:
    async def red(name: str) -> str:
        page = await member.get("/writez")
        assert page.status == 503
        lines = {line[3:].partition(" ")[0]: line for line in page.body.split("\n") if line}
        assert [each for each, line in lines.items() if line.startswith("[-]")] == [name]
        return lines[name].partition("failed: ")[2]

    member.leader_id = 0
    assert await red("leader") == "no leader"
    member.leader_id, member.alarms = 1, raised(AlarmType.NOSPACE)
    assert await red("space") == "alarm activated: NOSPACE"
    member.alarms, member.over_quota = [], True
    assert await red("space") == "9 bytes stored, the quota is 8"
    member.over_quota, member.alarms = False, raised(AlarmType.CORRUPT)
    assert await red("data_corruption") == "alarm activated: CORRUPT"
    member.alarms, member.read_problem = [], errors.RequestTimeout()
    assert await red("quorum") == "etcdserver: request timed out"


async def test_a_write_needs_a_log_a_majority_and_a_disk(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.05)
    member.persisted_to, member.answers = 6, False
    checks = member.checks
    assert "stalled" in await checks.log()
    assert "no majority answered" in await checks.quorum()
    member.persisted_to = 7
    assert await checks.log() == ""
    (member.folder / "member").rmdir()
    assert "the disk refuses a small file: No such file" in await checks.disk()


async def test_a_disk_that_hangs_holds_one_thread(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[asyncio.Future[None]] = []

    def run_in_executor(*_: object) -> asyncio.Future[None]:
        begun.append(asyncio.get_running_loop().create_future())
        return begun[-1]

    monkeypatch.setattr(module, "STALL_S", 0.02)
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", run_in_executor)
    checks = member.checks
    for _ in range(3):
        assert "has not synced" in await checks.disk()
    assert len(begun) == 1
    begun[0].set_result(None)
    asyncio.get_running_loop().call_soon(lambda: begun[1].set_result(None))
    assert await checks.disk() == "" and len(begun) == 2


async def test_checks_of_a_probe_run_side_by_side() -> None:
    gate = asyncio.Event()

    async def opens() -> str:
        gate.set()
        return ""

    async def waits() -> str:
        await gate.wait()
        return ""

    checks: dict[str, Check] = {"waits": waits, "opens": opens}
    route: Route = probe_routes("/p", checks)[0]
    query: Query = {}
    assert await route.handler(query) == Page("ok\n")
