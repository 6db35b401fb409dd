"""Sessions in MongoDB, for many processes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from ..clock import Clock, SystemClock
from ..identity import RefreshState, Session, SessionState
from ..listeners import Listeners
from ..mongodb import (
    ChangeFeed,
    Database,
    LookUps,
    ReplicaSetView,
    bounded,
    collection,
    find_one,
    make_indexes,
    require_replica_set,
    settled,
    undisturbed,
    view_replica_set,
)
from ..sealing import Keyring
from .base import (
    ChangeKind,
    ChangeListener,
    Lease,
    LeaseRefused,
    SealingKeys,
    SessionChange,
    SessionStore,
    VersionConflict,
)
from .documents import (
    KEPT_INDEXES,
    RECORD_INDEXES,
    SESSION_INDEXES,
    UnreadableDocumentError,
    assignments,
    credential_digests,
    date,
    ends_at_expression,
    expired,
    refresh_document,
    session_document,
    session_from,
    subject_key,
)
from .mongo_records import MongoKeptRecords, MongoSingleUseRecords
from .mongo_sealed import MongoSealedValues

__all__ = ["MongoSessionStore"]

logger = logging.getLogger(__name__)

Document = dict[str, Any]

# The server's time in epoch seconds, inside an expression.
NOW: Document = {"$divide": [{"$toLong": "$$NOW"}, 1000]}
NO_LEASE_RUNS: Document = {"$lte": ["$refresh.until", NOW]}
PING_KEPT = 86_400.0
NEW_ROW = ReturnDocument.AFTER
CLIENT_PAGE = 100  # sessions of a client, at a time
ENDS = ["expires_at", "idle_expires_at"]
CLEARED: Document = {**refresh_document(RefreshState()), "fence": "$refresh.fence"}
# What `update` writes: not what it leaves alone, nor what the server computes.
UPDATED = {field.name for field in fields(Session)} | {"schema", "reauth_digest", "subject"}
UPDATED |= {"token_set_key", "reauth_key"}
UPDATED -= {"id", "refresh", "last_seen", "idle_expires_at", "version"}
# What others must hear: the end of a session and a new version of it, not who was seen or holds a lease.
FEED = (
    {
        "$match": {
            "$or": [
                {"operationType": {"$in": ["delete", "replace", "invalidate"]}},
                {"operationType": "update", "updateDescription.updatedFields.version": {"$exists": True}},
            ]
        }
    },
    {"$project": {"operationType": 1, "documentKey": 1, "wallTime": 1, "updateDescription.updatedFields.version": 1}},
)


class MongoSessionStore(SessionStore):
    """Sessions in the collection `sessions`, records in `single_use_records` and `kept_records`, of a Motor or PyMongo
    `AsyncDatabase` whose client the caller closes.

    Needs a replica set: the change feed is a change stream. Every call ends within a second; reads go to the primary,
    writes to a majority. What no key of `keyring` opens needs its user to sign in again.
    """

    def __init__(self, database: Database, keyring: Keyring, *, clock: Clock | None = None) -> None:
        self._database = database
        self._keyring = self.keyring = keyring
        self._clock = clock or SystemClock()
        self._sessions = collection(database, "sessions")
        self._records = collection(database, "single_use_records")
        self._kept = collection(database, "kept_records")
        self.records = MongoSingleUseRecords(self._records, keyring, self._clock)
        self.kept = MongoKeptRecords(self._kept, keyring, self._clock)
        self.sealed = MongoSealedValues(self._sessions, self._records, self._kept, keyring)
        self._by_credential = LookUps(self._sessions, "credentials.digest", credential_digests)
        self._listeners: Listeners[SessionChange] = Listeners()
        self._feed = ChangeFeed(
            self._sessions, FEED, on_change=self._on_change, on_loss=self._on_loss, clock=self._clock
        )

    async def start(self) -> None:
        """Make indexes, begin the change feed. Raises `ConfigurationError` for a server that is no replica set or
        refuses us, `StoreUnavailableError` where none answers within five seconds."""
        await require_replica_set(self._database)
        await make_indexes(
            (self._sessions, SESSION_INDEXES), (self._records, RECORD_INDEXES), (self._kept, KEPT_INDEXES)
        )
        await self._feed.start()

    async def close(self) -> None:
        await self._feed.close()
        await self._by_credential.close()

    @property
    def feed_alive(self) -> bool:
        """Whether the change stream is open and answered within the last five seconds."""
        return self._feed.alive

    @property
    def feed_delay(self) -> float | None:
        return self._feed.delay

    @undisturbed
    async def ping(self) -> None:
        """A write that a majority acknowledges: a full disk or a lost majority would pass for health in a read."""
        ends_at = date(self._clock.time() + PING_KEPT)
        with bounded():
            await self._records.update_one({"_id": "ping"}, {"$set": {"ends_at": ends_at}}, upsert=True)

    @undisturbed
    async def view_replica_set(self) -> ReplicaSetView | None:
        return await view_replica_set(self._database)

    async def sealing_keys(self) -> SealingKeys:
        return await self.sealed.keys()

    # -- sessions --------------------------------------------------------------------------------------------------

    @undisturbed
    async def insert(self, session: Session) -> None:
        document = session_document(session, self._keyring)
        try:
            with bounded():
                await self._sessions.insert_one(document)
        except DuplicateKeyError:
            raise VersionConflict(session.id) from None

    @undisturbed
    async def find(self, session_id: str) -> Session | None:
        return await self._find({"_id": session_id})

    async def find_by_credential(self, digest: bytes) -> Session | None:
        document = await self._by_credential.find(digest)
        return None if document is None else self._read(document)

    @undisturbed
    async def find_by_reauth(self, digest: bytes) -> Session | None:
        return await self._find({"reauth_digest": digest})

    @undisturbed
    async def find_by_user(self, user_id: str) -> list[Session]:
        return await self._find_all({"user_id": user_id})

    async def find_by_client(self, client_id: str) -> AsyncIterator[Session]:
        last = ""
        while documents := await self._client_page(client_id, last):
            for session in map(self._read, documents):
                if session is not None:
                    yield session
            last = documents[-1]["_id"]

    @undisturbed
    async def _client_page(self, client_id: str, after: str) -> list[Document]:
        query = {"grants.client_id": client_id, "_id": {"$gt": after}}
        with bounded():
            found: list[Document] = await self._sessions.find(query).sort("_id", 1).limit(CLIENT_PAGE).to_list(None)
        return found

    @undisturbed
    async def find_by_sid(self, sid: str) -> list[Session]:
        return await self._find_all({"sid": sid})

    @undisturbed
    async def find_by_subject(self, issuer: str, subject: str) -> list[Session]:
        return await self._find_all({"subject": subject_key(issuer, subject)})

    @undisturbed
    async def update(self, session: Session) -> Session:
        document = session_document(session, self._keyring)
        same_token = {"$eq": ["$token_version", session.token_version]}
        # One stage reads the row as it was, the next the times that the first one wrote.
        pipeline = [
            {
                "$set": {
                    **assignments(document, UPDATED),
                    "refresh": {"$cond": [same_token, "$refresh", CLEARED]},
                    "version": {"$add": ["$version", 1]},
                }
            },
            {"$set": {"ends_at": ends_at_expression()}},
        ]
        row = None
        try:
            row = await self._change({**self._live(session.id), "version": session.version}, pipeline)
        except DuplicateKeyError:
            logger.warning("a credential of session %s is another session's", session.id)
        if row is None:
            raise VersionConflict(session.id)
        return row

    @undisturbed
    async def touch(self, session_id: str, last_seen: float, idle_expires_at: float) -> None:
        pipeline = [
            {
                "$set": {
                    "last_seen": {"$max": ["$last_seen", last_seen]},
                    "idle_expires_at": {"$max": ["$idle_expires_at", idle_expires_at]},
                }
            },
            {"$set": {"ends_at": ends_at_expression()}},
        ]
        with bounded():
            await self._sessions.update_one(self._live(session_id), pipeline)

    @undisturbed
    async def delete(self, session_id: str) -> bool:
        with bounded():
            document = await self._sessions.find_one_and_delete({"_id": session_id}, projection=ENDS)
        return document is not None and not expired(document, self._clock.time())

    @undisturbed
    async def delete_by_user(self, user_id: str) -> list[str]:
        # Not by way of sessions: what cannot be read must end, too.
        with bounded():
            found = self._sessions.find({"user_id": user_id}, ENDS)
            documents = await found.sort("created_at", 1).to_list(None)
            if documents:
                await self._sessions.delete_many({"_id": {"$in": [document["_id"] for document in documents]}})
        now = self._clock.time()
        return [document["_id"] for document in documents if not expired(document, now)]

    # -- the lease -------------------------------------------------------------------------------------------------

    @undisturbed
    async def take_lease(
        self,
        session_id: str,
        *,
        owner: str,
        token_version: int,
        intent: bytes,
        duration: float,
        seen: int | None = None,
    ) -> Lease | LeaseRefused:
        given_back = {"$eq": ["$refresh.owner", None]}
        watched = {"$eq": ["$refresh.fence", seen]}
        spendable = {
            "$or": [
                {"$eq": ["$refresh.presented", 0]},
                {"$and": [{"$eq": ["$refresh.presented", 1]}, {"$or": [given_back, watched]}]},
            ]
        }
        row = await self._change(
            {**self._spent(session_id, token_version), "$expr": {"$and": [NO_LEASE_RUNS, spendable]}},
            [
                {
                    "$set": {
                        "refresh.owner": {"$literal": owner},
                        "refresh.until": {"$add": [NOW, duration]},
                        "refresh.fence": {"$add": ["$refresh.fence", 1]},
                        "refresh.intent": {"$literal": intent},
                        "refresh.presented": {"$add": ["$refresh.presented", 1]},
                    }
                }
            ],
        )
        if row is None:
            return await self._refusal(session_id)
        if row.state is not SessionState.ACTIVE:
            # The row says active, but no key opens its tokens: there is nothing to send.
            return LeaseRefused(session=row, expired=False)
        return Lease(session=row, fence=row.refresh.fence, reattempt=row.refresh.presented > 1)

    @undisturbed
    async def renew_lease(self, session_id: str, fence: int, duration: float) -> bool:
        with bounded():
            result = await self._sessions.update_one(
                self._leased(session_id, fence), [{"$set": {"refresh.until": {"$add": [NOW, duration]}}}]
            )
        return bool(result.matched_count)

    @undisturbed
    async def release_lease(self, session_id: str, fence: int, state: RefreshState) -> None:
        given_back = refresh_document(replace(state, owner=None, until=0.0, fence=fence))
        with bounded():
            await self._sessions.update_one(self._leased(session_id, fence), {"$set": {"refresh": given_back}})

    @undisturbed
    async def save_refresh(
        self, session: Session, *, spent_version: int, lost_scopes: frozenset[str] = frozenset()
    ) -> Session | None:
        document = session_document(replace(session, token_version=spent_version + 1), self._keyring)
        outcome = assignments(document, ["token_set", "token_set_key", "token_version"])
        outcome["scopes"] = {"$setDifference": ["$scopes", {"$literal": sorted(lost_scopes)}]}
        row = await self._conclude(session.id, spent_version, outcome)
        if row is None:
            # Perhaps this very result is there: its first acknowledgement was lost.
            row = await self.find(session.id)
            if row is None or row.token_version != spent_version + 1 or row.token_set != session.token_set:
                return None
        return row

    @undisturbed
    async def require_reauthorization(self, session: Session, *, spent_version: int) -> Session | None:
        document = session_document(replace(session, state=SessionState.REAUTHORIZATION), self._keyring)
        outcome = assignments(document, ["state", "reauth", "reauth_key", "reauth_digest", "reauth_reason"])
        row = await self._conclude(session.id, spent_version, outcome)
        if row is None:
            row = await self.find(session.id)
            if row is None or row.token_version != spent_version or row.reauth != session.reauth:
                return None
        return row

    # -- the change feed -------------------------------------------------------------------------------------------

    def subscribe(self, listener: ChangeListener) -> Callable[[], None]:
        return self._listeners.add(listener)

    def _on_change(self, change: Mapping[str, Any]) -> None:
        kind = ChangeKind.ENDED if change["operationType"] == "delete" else ChangeKind.CHANGED
        version = change.get("updateDescription", {}).get("updatedFields", {}).get("version")
        self._listeners.notify(SessionChange(kind, change["documentKey"]["_id"], version))

    def _on_loss(self) -> None:
        self._listeners.notify(SessionChange(ChangeKind.LOST))

    # -- rows ------------------------------------------------------------------------------------------------------

    async def _find(self, query: Document) -> Session | None:
        with bounded():
            document = await find_one(self._sessions, query)
        return None if document is None else self._read(document)

    async def _find_all(self, query: Document) -> list[Session]:
        with bounded():
            documents = await self._sessions.find(query).sort("created_at", 1).to_list(None)
        return [session for session in map(self._read, documents) if session is not None]

    async def _change(self, query: Document, pipeline: list[Document]) -> Session | None:
        """The row after a conditional write, or None when no row met the condition (or it cannot be read)."""
        with bounded():
            document = await self._sessions.find_one_and_update(query, pipeline, return_document=NEW_ROW)
        return None if document is None else self._read(document)

    async def _conclude(self, session_id: str, spent_version: int, outcome: Document) -> Session | None:
        """Write the outcome of a refresh on what was spent, and clear lease and intent."""
        changes = {**outcome, "refresh": CLEARED, "version": {"$add": ["$version", 1]}}
        return await self._change(self._spent(session_id, spent_version), [{"$set": changes}])

    async def _refusal(self, session_id: str) -> LeaseRefused:
        pipeline = [{"$match": {"_id": session_id}}, {"$set": {"no_lease_runs": NO_LEASE_RUNS}}]
        with bounded():
            documents = await (await settled(self._sessions.aggregate(pipeline))).to_list(None)
        row = self._read(documents[0]) if documents else None
        return LeaseRefused(session=row, expired=True if row is None else documents[0]["no_lease_runs"])

    def _read(self, document: Document) -> Session | None:
        """The session of a document; None when it has ended or cannot be read."""
        try:
            session = session_from(document, self._keyring)
        except UnreadableDocumentError as error:
            self.metrics.increment("session.unreadable")
            logger.error("skipped an unreadable document: %s", error)  # noqa: TRY400 - the traceback is ours alone
            return None
        return session if session.ends_at > self._clock.time() else None

    def _live(self, session_id: str) -> Document:
        now = self._clock.time()
        return {"_id": session_id, "expires_at": {"$gt": now}, "idle_expires_at": {"$gt": now}}

    def _spent(self, session_id: str, token_version: int) -> Document:
        return {**self._live(session_id), "state": SessionState.ACTIVE.value, "token_version": token_version}

    def _leased(self, session_id: str, fence: int) -> Document:
        return {**self._live(session_id), "refresh.fence": fence, "refresh.owner": {"$ne": None}}
