"""What a command says of itself, word by word, with literal times."""

from kvstore.readiness.notify import Word


def said(*messages: tuple[float, bytes], watchdog_s: float = 0.0) -> Word:
    word = Word(watchdog_s)
    for at, message in messages:
        word.take(message, at)
    return word


def test_it_is_ready_when_it_says_so_and_until_it_says_otherwise() -> None:
    assert Word().reason(0.0) == "READY=1 has not come yet"
    assert said((1.0, b"READY=0")).reason(1.0) == "READY=1 has not come yet"
    assert said((1.0, b"READY=1\n")).reason(1.0) == ""
    assert said((1.0, b"READY=1"), (2.0, b"STOPPING=1")).reason(2.0) == "the command said STOPPING=1"
    reloading = (2.0, b"RELOADING=1\nMONOTONIC_USEC=5")
    assert said((1.0, b"READY=1"), reloading).reason(2.0) == "the command said RELOADING=1"
    assert said((1.0, b"READY=1"), reloading, (3.0, b"READY=1")).reason(3.0) == ""


def test_a_watchdog_that_is_late_makes_it_unready_until_it_comes() -> None:
    word = said((1.0, b"READY=1"), watchdog_s=5.0)
    assert (word.reason(5.9), word.late_at) == ("", 6.0)
    assert word.reason(6.0) == "no WATCHDOG=1 for 5 s"
    word.take(b"WATCHDOG=1", 7.0)
    assert (word.reason(7.0), word.late_at) == ("", 12.0)
    word.take(b"WATCHDOG=trigger", 8.0)
    assert (word.reason(8.0), word.late_at) == ("the command said WATCHDOG=trigger", None)
    word.take(b"WATCHDOG=1", 9.0)
    assert word.reason(9.0) == ""


def test_a_command_may_set_its_own_watchdog() -> None:
    word = said((1.0, b"READY=1\nWATCHDOG_USEC=500000"))
    assert (word.reason(1.4), word.reason(1.5)) == ("", "no WATCHDOG=1 for 0.5 s")
    word.take(b"WATCHDOG_USEC=soon", 1.6)
    assert word.watchdog_s == 0.5


def test_before_it_is_ready_nobody_waits_for_a_watchdog() -> None:
    assert said(watchdog_s=1.0).late_at is None


def test_what_is_for_the_log_and_what_is_nobodys_business() -> None:
    word = Word()
    assert word.take(b"STATUS=warming up\nMAINPID=7\nX_OWN=1\n\xff\nREADY=1", 0.0) == ["warming up"]
    assert word.reason(0.0) == ""
