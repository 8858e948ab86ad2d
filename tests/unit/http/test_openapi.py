"""The description: whole, closed under reference, and in step with the paths served."""

from __future__ import annotations

import json
import re

from kvstore.http.openapi import document, document_html, document_json
from kvstore.http.paths import table


def test_every_path_is_described() -> None:
    described = document()["paths"]
    assert set(table()) <= set(described)
    assert {"/version", "/health", "/livez", "/readyz", "/writez"} <= set(described)
    assert described["/v3/kv/lease/revoke"]["post"]["deprecated"]


def test_every_reference_leads_somewhere_and_operations_have_names_of_their_own() -> None:
    text = document_json()
    schemas = json.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(schemas)
    names = [item["post"]["operationId"] for item in document()["paths"].values() if "post" in item]
    assert len(names) == len(set(names))


def test_fields_are_described_as_they_are_spelled() -> None:
    fields = document()["components"]["schemas"]["etcdserverpb.RangeRequest"]["properties"]
    assert fields["range_end"] == {"type": "string", "format": "byte", "contentEncoding": "base64"}
    assert fields["sort_order"]["enum"] == ["NONE", "ASCEND", "DESCEND"]
    assert fields["limit"]["pattern"] == "^-?[0-9]{1,19}$"


def test_the_page_names_every_path() -> None:
    page = document_html()
    assert all(f"POST {path}<" in page for path in table())
