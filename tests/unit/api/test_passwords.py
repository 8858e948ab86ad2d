"""Passwords: right ones, wrong ones, and how many of either anybody gets to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bcrypt
import pytest

from kvstore import errors
from kvstore.api import passwords as module
from kvstore.api.passwords import Passwords, is_hash

COST = 4
RIGHT = bcrypt.hashpw(b"right", bcrypt.gensalt(COST))


class World:
    """Time that goes on when told, and a thread that works when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.work: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.passwords = Passwords(
            cost=COST,
            run=lambda work, done: self.work.append((work, done)),
            now=lambda: self.now,
            call_later=lambda delay, call: self.timers.append((self.now + delay, call)),
        )
        self.answers: list[tuple[str, bool]] = []

    def check(self, user: str, password: str, hashed: bytes | None = RIGHT, name: str = "") -> None:
        self.passwords.check(user, hashed, password, lambda right: self.answers.append((name or user, right)))

    def step(self) -> None:
        """One piece of work, at once if there is some, else at the next time there is."""
        if not self.work:
            self.timers.sort(key=lambda timer: timer[0])
            self.now, wake = self.timers.pop(0)
            wake()
        assert len(self.work) <= 1, "one at a time"
        if self.work:
            work, done = self.work.pop(0)
            done(work())

    def run(self) -> list[tuple[str, bool]]:
        for _ in range(10_000):
            if not self.work and not self.timers:
                break
            self.step()
        return self.answers


@pytest.fixture
def world() -> World:
    return World()


def test_right_and_wrong(world: World) -> None:
    world.check("u", "right")
    world.check("u", "wrong")
    world.check("nobody", "right", None)
    world.check("broken", "", b"")
    world.check("long", "x" * 73, bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(COST)))
    assert sorted(world.run()) == [
        ("broken", False),
        ("long", False),
        ("nobody", False),
        ("u", False),
        ("u", True),
    ]


def test_who_does_not_exist_is_hashed_for_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        seen.append(hashed[:7])
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    world.check("nobody", "guess", None)
    world.check("broken", "guess", b"junk")
    world.check("u", "guess")
    world.run()
    assert seen == [b"$2b$04$"] * 3


def test_guessing_at_one_user_holds_up_nobody_else_and_gets_slower(world: World) -> None:
    for _ in range(20):
        world.check("victim", "guess")
    world.check("other", "right")
    world.step()
    world.step()
    assert world.answers[:2] == [("victim", False), ("other", True)], "one each, in turn"
    world.run()
    assert world.now > 10, "after the first few, one a second"
    before = world.now
    world.check("victim", "right")
    world.check("victim", "wrong")
    world.check("victim", "right")
    world.run()
    assert world.now - before < 2, "a right one makes good"


def test_names_that_are_nobodys_share_one_queue(world: World) -> None:
    for number in range(module.WAITING_PER_USER_MAX + 1):
        world.check(f"nobody{number}", "guess", None)
    with pytest.raises(errors.TooManyRequests):
        world.check("nobody", "guess", None)
    world.check("u", "right")
    world.step()
    world.step()
    assert world.answers[-1] == ("u", True)


def test_what_nobody_waits_for_any_more_is_not_done(world: World) -> None:
    world.check("u", "right")
    world.passwords.check("u", RIGHT, "right", lambda right: pytest.fail("asked"), lambda: False)
    world.check("u", "right", name="last")
    assert world.run() == [("u", True), ("last", True)]


def test_making_a_hash(world: World) -> None:
    made: list[bytes] = []
    world.passwords.make("", made.append)
    world.passwords.make("x" * 72, made.append)
    with pytest.raises(errors.PasswordTooLong):
        world.passwords.make("\u00e9" * 37, made.append)
    world.run()
    assert [is_hash(each) for each in made] == [True, True]
    assert bcrypt.checkpw(b"", made[0]) and bcrypt.checkpw(b"x" * 72, made[1])
    assert not is_hash(b"") and not is_hash(made[0] + b"x") and not is_hash(b"$2b$10$short")
