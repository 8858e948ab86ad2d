"""Labels in, wishes and complaints out."""

import pytest

from kvstore.readiness.docker_labels import InvalidLabel, Wish, read_labels, unknown, wants


def labels(**ours: str) -> dict[str, str]:
    return {"maintainer": "somebody", **{f"kvstore.{name}": value for name, value in ours.items()}}


def test_who_names_a_service_is_announced_and_nobody_else() -> None:
    assert wants(labels(service="web"))
    assert not wants(labels(port="80"))


def test_little_is_enough_and_everything_can_be_said() -> None:
    assert read_labels(labels(service="web")) == Wish("web")
    said = labels(
        service="web",
        port="8080",
        network="front",
        id="a",
        protocol="h2c",
        weight="7",
        zone="z1",
        tags="blue, fast,,",
        check="/ok",
    )
    assert read_labels(said) == Wish("web", 8080, "front", "a", "h2c", 7, "z1", ("blue", "fast"), "/ok")
    assert read_labels(labels(service="web", check="none")).check == ""


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"service": "a b"},
            "kvstore.service: 'a b' is not a name: a letter or digit, then up to 127 letters, digits, '.', '_', "
            "':' or '-'",
        ),
        ({"port": "http"}, "kvstore.port: 'http' is not a number from 1 to 65535"),
        ({"port": "0"}, "kvstore.port: '0' is not a number from 1 to 65535"),
        ({"port": "٣"}, "kvstore.port: '٣' is not a number from 1 to 65535"),
        ({"weight": "-1"}, "kvstore.weight: '-1' is not a number from 0 to 256"),
        (
            {"check": "cmd:true"},
            "kvstore.check: 'cmd:true' would run outside of the container; make it the image's HEALTHCHECK",
        ),
    ],
)
def test_what_is_wrong_is_said_by_name(wrong: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidLabel) as caught:
        read_labels(labels(**{"service": "web", **wrong}))
    assert str(caught.value) == text


def test_a_label_that_looks_like_ours_is_told_of() -> None:
    assert unknown(labels(service="web", prot="80", qqqq="")) == [
        "label kvstore.prot means nothing; kvstore.port?",
        "label kvstore.qqqq means nothing",
    ]
