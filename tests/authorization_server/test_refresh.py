"""Refresh tokens: rotation, the grace for what comes at the same time or got lost, and the end for what was stolen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.authorization_server.kit import ALL, Installation, World, world
from tornado_sse_auth import MemorySessionStore, Session, SessionState, StoreUnavailableError
from tornado_sse_auth.authorization_server.grants import REFRESH_TOKEN
from tornado_sse_auth.testing import ManualClock


async def spread(token: str, clients: list[Installation], calls: int) -> list[Any]:
    """`calls` refreshes at once with one token."""
    return [
        answer.json()
        for answer in await asyncio.gather(*(clients[number % len(clients)].refresh(token) for number in range(calls)))
    ]


async def elsewhere(client: Installation, there: World) -> Installation:
    """The same installation, when its calls land in another process."""
    return Installation(there, client_id=client.client_id, tokens=client.tokens)


async def test_rotation(here: World) -> None:
    """Each refresh gives a new pair; what it spent is good for nothing but the grace; the grant stays the same."""
    client = await here.installation()
    grant, seen = await client.grant_id(), []
    for _ in range(5):
        seen.append(client.tokens["refresh_token"])
        assert REFRESH_TOKEN.fullmatch(seen[-1])
        here.clock.advance(500)
        answer = await client.refresh()
        assert (answer.status_code, answer.json()["expires_in"]) == (200, 600)
        assert await client.grant_id() == grant
    assert len({*seen, client.tokens["refresh_token"]}) == 6


async def test_one_token_fifty_times_at_once(processes: tuple[World, World]) -> None:
    """SEC-40, REL-30: over two processes all get the same successor; after the grace the family and its streams end."""
    first, second = processes
    browser = await first.signed_in()
    here = await first.installation(browser)
    there = await elsewhere(here, second)
    old = here.tokens["refresh_token"]
    for _ in range(3):
        token = here.tokens["refresh_token"]
        answers = await spread(token, [here, there], 50)
        assert len({answer["refresh_token"] for answer in answers}) == 1
        assert len({answer["access_token"] for answer in answers}) == 1
        assert answers[0]["refresh_token"] != token
    # Within the grace the first of them all leads to the newest, too.
    assert (await there.refresh(old)).json()["refresh_token"] == here.tokens["refresh_token"]
    assert (await here.get()).status_code == (await there.get()).status_code == 200
    async with second.app.stream("/stream", bearer=there.tokens["access_token"]) as stream:
        await stream.next("open")
        first.clock.advance(31)
        assert (await here.refresh(old)).json()["error"] == "invalid_grant"
        assert (await stream.next("end")).json() == {"reason": "revoked"}
    for client in (here, there):
        assert (await client.refresh()).json()["error"] == "invalid_grant"
        assert (await client.get()).status_code == 401
    assert (await first.session(browser.session_id)).grants == ()


async def test_a_lost_answer_may_be_asked_for_again(here: World) -> None:
    """REL-30: however late, as long as neither of its tokens was used; not once one of them was."""
    client = await here.installation()
    first = client.tokens["refresh_token"]
    lost = (await client.refresh(first)).json()
    here.clock.advance(7200)  # the laptop sleeps
    again = (await client.refresh(first)).json()
    assert again["refresh_token"] == lost["refresh_token"]
    assert again["access_token"] != lost["access_token"]  # that one is too old to be of use
    assert again["expires_in"] == 600
    here.clock.advance(7200)
    assert (await client.refresh(first)).json()["refresh_token"] == lost["refresh_token"]
    assert (await client.get()).status_code == 200
    here.clock.advance(31)
    assert (await client.refresh(first)).json()["error"] == "invalid_grant"
    assert (await client.refresh(lost["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_stolen_token_ends_the_family(here: World) -> None:
    """SEC-11, SEC-40: whichever of the two uses it last; also one from long before that no list has any more."""
    for generations in (2, 40):
        client = await here.installation()
        stolen = client.tokens["refresh_token"]
        for _ in range(generations):
            assert (await client.refresh()).status_code == 200
            here.clock.advance(40)
        assert (await client.refresh(stolen)).json()["error"] == "invalid_grant"
        assert (await client.refresh()).json()["error"] == "invalid_grant"
        assert (await client.get()).status_code == 401
        invented = await here.installation()
        family = invented.tokens["refresh_token"][:43]
        assert (await invented.refresh(family + "A" * 43)).json()["error"] == "invalid_grant"
        assert (await invented.refresh()).json()["error"] == "invalid_grant"


async def test_the_access_token_of_the_grace(here: World) -> None:
    """At least half of its life is left of the one that is given again, and `expires_in` is what remains."""
    client = await here.installation()
    token = client.tokens["refresh_token"]
    one = (await client.refresh(token)).json()
    here.clock.advance(20)
    two = (await client.refresh(token)).json()
    assert (two["access_token"], two["expires_in"]) == (one["access_token"], 580)
    other = (await client.refresh(token, scope="content:read")).json()
    assert other["access_token"] != one["access_token"]
    assert other["refresh_token"] == one["refresh_token"]
    assert (await client.get(token=one["access_token"])).json()["scopes"] == sorted(ALL)


async def test_the_end_of_an_access_token(here: World) -> None:
    """A call that straddles the advertised end is served, for a tenth of the token's life; then never again."""
    client = await here.installation()
    here.clock.advance(600 + 29)
    assert (await client.get()).status_code == 200
    here.clock.advance(2)
    assert (await client.get()).json()["error"] == "invalid_token"
    assert (await client.refresh()).status_code == 200
    assert (await client.get()).status_code == 200


async def test_a_call_under_way_while_its_token_is_renewed(here: World) -> None:
    """It passes: TypeScript SDK 1 gives up on a 401 that comes just after its refresh. Five seconds later, never."""
    client = await here.installation()
    old = client.tokens["access_token"]
    here.clock.advance(631)
    assert (await client.get(token=old)).status_code == 401
    assert (await client.refresh()).status_code == 200
    here.clock.advance(4)
    assert (await client.get(token=old)).status_code == 200
    # Another refresh is no reason to lengthen the life of what was not the newest.
    assert (await client.refresh()).status_code == 200
    here.clock.advance(2)
    assert (await client.get(token=old)).json()["error"] == "invalid_token"
    assert (await client.get()).status_code == 200


async def test_expired_tokens_are_no_attempts_to_guess_one(here: World) -> None:
    """Many clients share an address; each shows up with its expired token once before it refreshes."""
    client = await here.installation()
    here.clock.advance(631)
    for _ in range(150):
        assert (await client.get()).json()["error"] == "invalid_token"
    assert (await client.refresh()).status_code == 200
    assert (await client.get()).status_code == 200
    assert (await client.get(token="A" * 43)).status_code == 401


async def test_who_may_not_refresh(here: World) -> None:
    """SEC-39: another client, an access token, a code, a cookie, after revocation also inside the grace; nothing is
    rotated by any of them."""
    browser = await here.signed_in()
    client = await here.installation(browser)
    other = Installation(here)
    await other.register(client_name="Other")
    token = client.tokens["refresh_token"]
    for presented in (
        client.tokens["access_token"],
        client.tokens["access_token"] * 2,
        await client.code(browser),
        browser.http.cookies.get(here.app.cookie) or "",
        "x" * 86,
        token[:-1],
        f"{token}=",
    ):
        assert (await client.refresh(presented)).json()["error"] == "invalid_grant"
    assert (await other.refresh(token)).json()["error"] == "invalid_grant"
    assert (await client.refresh(token)).status_code == 200
    assert (await client.call("/oauth/revoke", token=token)).status_code == 200
    assert (await client.refresh(token)).json()["error"] == "invalid_grant"
    assert (await client.refresh()).json()["error"] == "invalid_grant"


async def test_a_client_that_does_not_refresh(here: World) -> None:
    """It gets no refresh token, and its grant is over with the access token."""
    browser = await here.signed_in()
    client = Installation(here, metadata={"grant_types": ["authorization_code"]})
    await client.register()
    tokens = await client.connect(browser)
    assert "refresh_token" not in tokens
    assert (await client.get()).status_code == 200
    assert (await client.refresh("x" * 86)).json()["error"] == "unauthorized_client"
    here.clock.advance(631)
    await here.installation(browser)
    assert len((await here.session(browser.session_id)).grants) == 1


async def test_the_absolute_end(here: World) -> None:
    """SEC-39: a grant ends with its session, however busy it is; used, it keeps the session from idling."""
    client = await here.installation()
    day = 86_400.0
    for _ in range(29):
        here.clock.advance(day)
        assert (await client.refresh()).status_code == 200
    here.clock.advance(day - 100)
    last = await client.refresh()
    assert last.json()["expires_in"] == 100
    here.clock.advance(101)
    assert (await client.refresh()).json()["error"] == "invalid_grant"
    assert (await client.get()).status_code == 401


async def test_after_a_restart(processes: tuple[World, World]) -> None:
    """SEC-39: another process goes on where the first one was, access token and chain alike."""
    first, second = processes
    client = await first.installation()
    moved = await elsewhere(client, second)
    assert (await moved.get()).status_code == 200
    assert (await moved.refresh()).status_code == 200
    assert (await moved.get()).status_code == 200
    assert (await client.get(token=moved.tokens["access_token"])).status_code == 200


async def test_a_session_that_needs_its_user(here: World) -> None:
    """The grant is not touched: 401 and `invalid_grant` while it lasts, afterwards the same tokens go on."""
    browser = await here.signed_in()
    client = await here.installation(browser)
    session = await here.session(browser.session_id)
    waiting = await here.auth.store.require_reauthorization(session, spent_version=0)
    assert waiting is not None
    here.auth.sessions.watch.changed(waiting)
    assert (await client.get()).status_code == 401
    assert (await client.refresh()).json()["error"] == "invalid_grant"

    def active(stored: Session) -> Session:
        return replace(stored, state=SessionState.ACTIVE, reauth=None)

    assert await here.auth.sessions.update(session.id, active) is not None
    assert (await here.session(session.id)).grants == waiting.grants
    assert (await client.get()).status_code == 200
    assert (await client.refresh()).status_code == 200


class FailingStore(MemorySessionStore):
    """Fails on demand: before a write, or after it, when only the acknowledgement is lost."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.fail: str | None = None

    async def update(self, session: Session) -> Session:
        failing, self.fail = self.fail, None
        if failing == "before":
            raise StoreUnavailableError(reason="scripted")
        stored = await super().update(session)
        if failing == "after":
            raise StoreUnavailableError(reason="scripted")
        return stored


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_store_that_fails_midway_costs_no_sign_in(when: str) -> None:
    """REL-30: 503, and the same token is good again, whether the write came through or not."""
    clock = ManualClock()
    store = FailingStore(clock=clock)
    async with world(store, clock=clock) as here:
        client = await here.installation()
        token = client.tokens["refresh_token"]
        store.fail = when
        answer = await client.refresh(token)
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert "Retry-After" in answer.headers
        clock.advance(3600)
        assert (await client.refresh(token)).status_code == 200
        assert (await client.get()).status_code == 200
        assert (await client.refresh()).status_code == 200
