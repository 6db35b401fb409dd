"""`sessions list | show | revoke | revoke-user | revoke-client | revoke-all`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ..errors import ConfigurationError
from ..identity import Secret
from ..stores.documents import UnreadableDocumentError, session_from
from .arguments import Arguments
from .deployment import Deployment
from .terminal import Terminal, time_text

__all__ = ["list_sessions", "revoke", "revoke_all", "revoke_client", "revoke_user", "show"]

PAGE = 500
REVOCATIONS_AT_A_TIME = 10
Token = tuple[Secret, Literal["refresh_token", "access_token"]]
UNTOLD = (
    "The provider was not told: the sessions' refresh tokens stay valid there until they expire. "
    "Give --issuer, --client-id and the keys to revoke them, too."
)


async def list_sessions(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """One line a session, in the order of their ids."""
    found = await deployment.inventory.page(user_id=given.user, after=given.after, limit=given.limit + 1)
    more = found[given.limit - 1]["_id"] if len(found) > given.limit else None
    documents = [_document(row) for row in found[: given.limit]]
    columns = ("id", "user_id", "state", "created", "last_seen", "client")
    lines = terminal.table(columns, [[document[name] for name in columns] for document in documents])
    terminal.document({"sessions": documents, "next": more}, *lines)
    if more is not None and not terminal.as_json:
        terminal.tell(f"There are more: --after {more}")
    return 0


async def show(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """Everything of one session that is no secret."""
    row = await deployment.inventory.get(given.session_id)
    if row is None:
        terminal.tell(f"There is no session {given.session_id}.")
        return 1
    document = _document(row)
    terminal.document(document, *terminal.table(("field", "value"), list(document.items())))
    return 0


async def revoke(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """End the named sessions; those that are not there are told of, and make the status 1."""
    rows = {name: await deployment.inventory.get(name) for name in dict.fromkeys(given.session_ids)}
    there = {name: row for name, row in rows.items() if row is not None}
    for name in rows.keys() - there.keys():
        terminal.tell(f"There is no session {name}.")
    if there:
        users = ", ".join(sorted({str(row.get("user_id")) for row in there.values()}))
        terminal.confirm(f"End {_count(len(there))} of {users}?")
    for name in there:
        await deployment.sessions.revoke(name, reason="ended by an operator")
    _tell_outcome(deployment, terminal, len(there))
    return 0 if len(there) == len(rows) else 1


async def revoke_user(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """End all sessions of a user; status 1 where there is none."""
    rows = await deployment.inventory.page(user_id=given.user_id, limit=10_000)
    if not rows:
        terminal.tell(f"{given.user_id} has no session.")
        return 1
    terminal.confirm(f"End {_count(len(rows))} of {given.user_id}?")
    await deployment.sessions.revoke_user(given.user_id)
    _tell_outcome(deployment, terminal, len(rows))
    return 0


async def revoke_client(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """End all grants of a client; status 1 where it has none. Sessions that nothing else holds end with them."""
    deployment.require_keyring()
    if lost := (await deployment.store.sealing_keys()).lost:
        # Their sessions would be written anew, without them.
        raise ConfigurationError(f"{lost} values open with none of these keys: give all keys of the processes")
    rows = await deployment.inventory.page(client_id=given.client, limit=10_000)
    if not rows:
        terminal.tell(f"Nobody has allowed {given.client} anything.")
        return 1
    terminal.confirm(f"End what {given.client} may do in {_count(len(rows))}?")
    ended = await deployment.sessions.revoke_client(given.client)
    terminal.document({"ended": ended}, f"{ended} grant{'' if ended == 1 else 's'} ended.")
    return 0


async def revoke_all(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """End every session that was begun before now: whoever holds a copy of the database holds nothing that works. The
    provider is told when all have ended: a slow one holds up nothing."""
    begun_until = time.time()
    about = await deployment.inventory.count()
    terminal.confirm(f"End all sessions of everybody, about {about} of them? All users must sign in again.")
    ended = 0
    tokens: list[Token] = []
    while rows := await deployment.inventory.remove(begun_until=begun_until, limit=PAGE):
        ended += len(rows)
        terminal.progress(f"{ended} of about {about} sessions ended")
        tokens += _tokens(deployment, rows)
    deployment.audit.write("revocation", outcome="success", reason=f"all {ended} sessions ended by an operator")
    await _revoke_upstream(deployment, tokens, terminal)
    _tell_outcome(deployment, terminal, ended)
    return 0


def _tokens(deployment: Deployment, rows: Iterable[Mapping[str, Any]]) -> Iterator[Token]:
    """What is to be revoked at the provider, where that is named: of each session the token that ends its grant."""
    if deployment.provider is None or deployment.keyring is None:
        return
    for row in rows:
        try:
            token_set = session_from(row, deployment.keyring).token_set
        except UnreadableDocumentError:
            continue  # it has ended, and that is all that can be done for it
        if token_set is None:
            continue
        if token_set.refresh_token is not None:
            yield token_set.refresh_token, "refresh_token"
        else:
            yield token_set.access_token, "access_token"


async def _revoke_upstream(deployment: Deployment, tokens: Sequence[Token], terminal: Terminal) -> None:
    provider = deployment.provider
    if provider is None:
        return
    waiting, told = iter(tokens), 0

    async def revoke_some() -> None:
        nonlocal told
        for token, hint in waiting:
            await provider.revoke(token, hint)
            told += 1
            terminal.progress(f"{told} of {len(tokens)} tokens revoked at the provider")

    await asyncio.gather(*(revoke_some() for _ in range(REVOCATIONS_AT_A_TIME)))


def _tell_outcome(deployment: Deployment, terminal: Terminal, ended: int) -> None:
    terminal.document({"ended": ended}, f"{_count(ended)} ended.")
    if ended and deployment.provider is None:
        terminal.tell(UNTOLD)


def _count(number: int) -> str:
    return "1 session" if number == 1 else f"{number} sessions"


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    """A session as it is shown."""
    refresh = row.get("refresh") or {}
    return {
        "id": row["_id"],
        "user_id": row.get("user_id"),
        "state": row.get("state"),
        "reauth_reason": row.get("reauth_reason"),
        "created": time_text(row.get("created_at")),
        "last_seen": time_text(row.get("last_seen")),
        "expires": time_text(row.get("expires_at")),
        "idle_expires": time_text(row.get("idle_expires_at")),
        "client": row.get("client"),
        "scopes": row.get("scopes"),
        "permissions": row.get("permissions"),
        "subscription": row.get("subscription"),
        "sid": row.get("sid"),
        "credentials": [
            {
                "kind": one.get("kind"),
                "created": time_text(one.get("created_at")),
                "expires": time_text(one.get("expires_at")),
            }
            for one in row.get("credentials") or ()
        ],
        "grants": [
            {
                "id": one.get("id"),
                "client_id": one.get("client_id"),
                "name": one.get("name"),
                "scopes": one.get("scopes"),
                "created": time_text(one.get("created_at")),
                "last_used": time_text(one.get("last_used")),
            }
            for one in row.get("grants") or ()
        ],
        "token_version": row.get("token_version"),
        "sealed_with": row.get("token_set_key"),
        "refresh_failures": refresh.get("failures"),
        "refresh_not_before": time_text(refresh.get("not_before") or None),
    }
