"""All sessions of a database, for operators: what may be shown of them, and the end of every one."""

from __future__ import annotations

from typing import Any

from ..mongodb import Database, bounded, collection, undisturbed_for

__all__ = ["MongoInventory"]

LONG_CALL = 10.0
# Neither what is sealed nor what a credential's digest would be compared with.
SHOWN = (
    *("user_id", "client", "sid", "state", "reauth_reason", "schema", "version", "token_version", "token_set_key"),
    *("created_at", "last_seen", "expires_at", "idle_expires_at", "scopes", "permissions", "subscription"),
    *("refresh.failures", "refresh.not_before", "refresh.presented"),
    *(f"credentials.{name}" for name in ("kind", "created_at", "expires_at")),
    *(f"grants.{name}" for name in ("id", "client_id", "name", "scopes", "created_at", "last_used")),
)


class MongoInventory:
    """Documents as they stand, also those that this version cannot read. Raises `StoreUnavailableError`; calls take up
    to ten seconds."""

    def __init__(self, database: Database) -> None:
        self._sessions = collection(database, "sessions")

    @undisturbed_for(2 * LONG_CALL)
    async def page(
        self, *, user_id: str | None = None, client_id: str | None = None, after: str = "", limit: int
    ) -> list[dict[str, Any]]:
        """At most `limit` sessions with ids beyond `after`, in their ids' order; those of one user, those with a grant
        of one client, or all."""
        query: dict[str, Any] = {"_id": {"$gt": after}}
        if user_id is not None:
            query["user_id"] = user_id
        if client_id is not None:
            query["grants.client_id"] = client_id
        with bounded(LONG_CALL):
            found: list[dict[str, Any]] = (
                await self._sessions.find(query, SHOWN).sort("_id", 1).limit(limit).to_list(None)
            )
        return found

    @undisturbed_for(2 * LONG_CALL)
    async def get(self, session_id: str) -> dict[str, Any] | None:
        """One session, or None."""
        with bounded(LONG_CALL):
            found: dict[str, Any] | None = await self._sessions.find_one({"_id": session_id}, SHOWN)
        return found

    @undisturbed_for(2 * LONG_CALL)
    async def count(self) -> int:
        """About how many there are."""
        with bounded(LONG_CALL):
            return int(await self._sessions.estimated_document_count())

    @undisturbed_for(2 * LONG_CALL)
    async def remove(self, *, begun_until: float, limit: int) -> list[dict[str, Any]]:
        """End at most `limit` sessions that were begun until then (epoch seconds), also unreadable ones; the whole
        documents of those that were there."""
        with bounded(LONG_CALL):
            found: list[dict[str, Any]] = (
                await self._sessions.find({"created_at": {"$not": {"$gt": begun_until}}}).limit(limit).to_list(None)
            )
            if found:
                await self._sessions.delete_many({"_id": {"$in": [document["_id"] for document in found]}})
        return found
