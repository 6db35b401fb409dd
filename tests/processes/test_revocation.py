"""What ends in one process is over in all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.parts.sample_server import User, signed_in
from tests.processes.conftest import Pair


async def sign_out(user: User) -> httpx.Response:
    return await user.sign_out()


async def sign_out_everywhere(user: User) -> httpx.Response:
    return await user.sign_out(everywhere=True)


async def end_the_session(user: User) -> httpx.Response:
    async with user.client(user.at) as client:
        return await client.delete(f"/auth/sessions/{user.session_id}")


@pytest.mark.parametrize("end", [sign_out, sign_out_everywhere, end_the_session])
async def test_the_end_of_a_session_reaches_every_process(
    pair: Pair, account: str, end: Callable[[User], Awaitable[httpx.Response]]
) -> None:
    """SEC-50: streams end with `revoked`, and no cache answers any more; another user's stream goes on."""
    user, other = [await signed_in(pair.servers[0], name) for name in (account, f"{account}-other")]
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(user.stream(server)) for server in pair.servers]
        stays = await stack.enter_async_context(other.stream(pair.servers[1]))
        for server in pair.servers:
            async with user.client(server) as client:
                assert (await client.get("/me")).status_code == 200  # cached from here on
        assert (await end(user)).status_code == 204
        for server, stream in zip(pair.servers, streams, strict=True):
            assert (await stream.next("end")).json() == {"reason": "revoked"}
            await stream.wait_for_end()
            async with user.client(server) as client:
                refused = await client.get("/me")
            assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
        await stays.next("tick")
        assert not stays.ended
