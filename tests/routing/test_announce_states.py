"""kvctl announce with a real store: the states that are shown, names that are taken, instances that flap."""

from __future__ import annotations

from pathlib import Path

from kvstore.client import Client
from kvstore.readiness.instance import Instance, encode
from tests.routing.programs import Bench, Store, until
from tests.routing.test_announce import stored, until_stored

FAST = ("--interval=20ms", "--fall=1")


async def until_state(own: Bench, state: str) -> None:
    async def holds() -> bool:
        return [one.state.value for one in (await stored(own)).values()] == [state]

    await until(f"it is {state}", holds)


async def test_one_that_starts_or_has_failed_is_shown_where_that_is_asked_for(
    own: Bench, tmp_path: Path
) -> None:
    marker = tmp_path / "ready"
    words = ["announce", own.service, "--address=:1", f"--check=file:{marker}", "--show-unready", *FAST]
    announcer = await own.kvctl("a", *words)
    await until_state(own, "starting")
    marker.touch()
    await until_state(own, "ready")
    marker.unlink()
    await until_state(own, "failed")
    shown = await own.kvctl("services", "services", "list", own.service, "-w", "json")
    await shown.wait_line('"state": "failed"')
    assert await announcer.stop() == 0
    assert await stored(own) == {}


async def test_one_that_flaps_is_held_withdrawn(own: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    marker.touch()
    words = ["announce", own.service, "--address=:1", f"--check=file:{marker}", "--flips=1", "--hold=500ms"]
    announcer = await own.kvctl("a", *words, *FAST)
    for _ in range(2):
        await until_state(own, "ready")
        marker.unlink()
        await until_stored(own)
        marker.touch()
    await announcer.wait_line("it flaps: held withdrawn and not asked for 0.5 s")
    await until_state(own, "ready")


async def test_a_name_that_another_host_announces_is_refused_with_whose_it_is(own: Bench) -> None:
    """The other is a machine of its own here by the address that it gives."""
    first = await own.kvctl(
        "first", "announce", own.service, "--id=a", "--address=10.0.0.7:80", "--check=none"
    )
    await first.wait_line("announced ")
    words = ["announce", own.service, "--id=a", "--address=10.0.0.8:80", "--check=none"]
    second = await own.kvctl("second", *words)
    host = (await stored(own))["a"].host
    assert host != ""
    await second.wait_line(
        f"warning: {own.service}/a is announced already by another announcer of host {host}, at 10.0.0.7:80: "
        "give this one another --id, stop the other, or take it with --take-over"
    )
    assert (await stored(own))["a"].address == "10.0.0.7:80"
    assert await first.stop() == 0
    await second.wait_line("announced ")
    await second.wait_line("the name is free after")
    assert [one.address for one in (await stored(own)).values()] == ["10.0.0.8:80"]


async def test_a_name_can_be_taken_over_and_is_not_taken_back(own: Bench, store: Store) -> None:
    words = ["announce", own.service, "--id=a", "--check=none", "--ttl=1s", "--take-over"]
    first = await own.kvctl("first", *words, "--address=10.0.0.7:80")
    await first.wait_line("announced ")
    second = await own.kvctl("second", *words, "--address=10.0.0.8:80")
    await second.wait_line("announced ")
    if store.is_ours:  # etcd has no way to tell it
        await first.wait_line("the lease is lost; announcing again")
        await first.wait_line("is announced already by another announcer")
    assert await first.stop() == 0
    assert [one.address for one in (await stored(own)).values()] == ["10.0.0.8:80"]


async def test_a_key_that_somebody_put_by_hand_is_no_reason_to_wait_in_silence(
    own: Bench, store: Store
) -> None:
    """Our own store gives a key to who announces it, as ever; on etcd it is who put it last that is asked about."""
    instance = Instance(service=own.service, id="a", address="10.0.0.9:80")
    async with Client(own.endpoint) as client:
        await client.put(instance.key, encode(instance))
    announcer = await own.kvctl("a", "announce", own.service, "--id=a", "--address=:1", "--check=none")
    if not store.is_ours:
        await announcer.wait_line("is announced already by another announcer, at 10.0.0.9:80")
        async with Client(own.endpoint) as client:
            await client.delete(instance.key)
    await announcer.wait_line("announced ")
