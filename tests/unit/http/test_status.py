"""Statuses and error bodies, for clients of etcd up to 3.5 and from 3.6 on alike."""

from __future__ import annotations

import json

import pytest

from kvstore.http.status import HTTP_STATUS, error_body, http_status, stream_error, timeout_s
from kvstore.rpc import Status


def test_every_status_has_a_number_and_an_unknown_one_is_an_error() -> None:
    assert set(HTTP_STATUS) == set(Status)
    assert [http_status(code) for code in (0, 3, 5, 9, 11, 16, 14, 99, -1)] == [
        *(200, 400, 404, 400, 400, 401, 503, 500, 500),
    ]


def test_an_error_says_it_in_both_shapes() -> None:
    assert json.loads(error_body(Status.NOT_FOUND, "gone")) == {
        "error": "gone",
        "message": "gone",
        "code": 5,
        "details": [],
    }


@pytest.mark.parametrize("status", Status)
def test_a_streams_error_names_its_http_status(status: Status) -> None:
    error = json.loads(stream_error(status, "text"))["error"]
    assert error["grpc_code"] == error["code"] == status
    assert error["http_code"] == http_status(status) and error["http_status"] and error["message"] == "text"


def test_timeouts() -> None:
    assert timeout_s("2H") == 7200 and timeout_s("1500m") == 1.5 and timeout_s("5S") == 5
    for wrong in ("", "5", "5s", "123456789S", "-1S"):
        with pytest.raises(ValueError, match="invalid grpc-timeout"):
            timeout_s(wrong)
