"""The way out to another member's https URL: which context, and whether who answered is let in."""

from __future__ import annotations

import asyncio
import ssl

from kvstore.tls import certificates
from kvstore.tls.contexts import serials
from kvstore.tls.keeper import Keeper


class Dialing:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def context(self) -> ssl.SSLContext:
        """By the files of this moment; they are not read on the loop."""
        loop = asyncio.get_running_loop()
        material = await loop.run_in_executor(None, self._keeper.current)
        assert material.client is not None, "only peers dial"
        return material.client

    def refusal(self, ssl_object: ssl.SSLObject) -> str:
        """Why this member is not spoken to after all; "" where it is. Beyond etcd, which looks into the revocation
        list only where it is dialed, a revoked certificate is no good for answering either."""
        certificate = ssl_object.getpeercert()
        if not certificate:
            return ""
        reason = certificates.refusal(self._keeper.settings, certificate)
        revoked = self._keeper.revoked
        if not reason and revoked:
            reason = certificates.revocation(revoked, serials(ssl_object))
        return reason
