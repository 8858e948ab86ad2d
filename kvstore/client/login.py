"""The user a client speaks for, and the token it shows for it.

The token is fetched with the first call and again when a member refuses it, which it does when the token's time
is over, when that member has been restarted, or when the password was changed. While a cluster asks for no
names, none is said; one that begins to ask refuses the first call, and the answer to that is a token as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import AuthNotEnabled, AuthStoreOld, ClientError, InvalidAuthToken, NoUserName
from kvstore.pb import etcdserverpb_pb2 as pb

Authenticate = Callable[[Endpoint, pb.AuthenticateRequest, float], Awaitable[pb.AuthenticateResponse]]
REFUSALS = (InvalidAuthToken, AuthStoreOld, NoUserName)
"""Nothing was done, and a new token may help."""


class Login:
    def __init__(self, user: str, password: str, authenticate: Authenticate) -> None:
        """authenticate(endpoint, request, timeout_s) sends the one call that needs no token."""
        self._request = pb.AuthenticateRequest(name=user, password=password)
        self._authenticate = authenticate
        self._known = False
        self._lock = asyncio.Lock()
        self.token = ""
        """To be shown with every call; "" where nobody asks for it."""

    async def prepare(self, endpoint: Endpoint, timeout_s: float) -> None:
        """Afterwards there is a token, or no need for one as far as is known. Raises what authenticating does."""
        if not self._known:
            await self._fetch(endpoint, "", timeout_s)

    async def renew(self, endpoint: Endpoint, error: ClientError, refused: str, timeout_s: float) -> bool:
        """After a failure of a call that showed the token `refused`: whether it was because of that token, and
        there is another one now. Raises what authenticating does."""
        if not isinstance(error, REFUSALS):
            return False
        await self._fetch(endpoint, refused, timeout_s)
        return self.token != refused

    async def _fetch(self, endpoint: Endpoint, refused: str, timeout_s: float) -> None:
        """Once for all calls that were refused with the same token."""
        async with self._lock:
            if self._known and self.token != refused:
                return
            try:
                self.token = (await self._authenticate(endpoint, self._request, timeout_s)).token
            except AuthNotEnabled:
                self.token = ""
            self._known = True
