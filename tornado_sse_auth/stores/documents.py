"""Sessions as MongoDB documents: fields, sealing, indexes. Pure.

Times are epoch seconds; only the TTL field `ends_at` is a date. Claims are JSON text, so that no name or number in them
is one that BSON cannot hold. Token set and reauthorization value are sealed for their session and user.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pymongo import ASCENDING, IndexModel

from ..identity import (
    Credential,
    CredentialKind,
    Grant,
    RefreshState,
    Secret,
    Session,
    SessionState,
    SpentRefreshToken,
    TokenSet,
)
from ..sealing import Keyring, UnsealError, context

__all__ = [
    "KEPT_INDEXES",
    "RECORD_INDEXES",
    "SCHEMA",
    "SESSION_INDEXES",
    "UNREADABLE",
    "UnreadableDocumentError",
    "assignments",
    "credential_digests",
    "date",
    "ends_at_expression",
    "expired",
    "key_name",
    "refresh_document",
    "session_document",
    "session_from",
    "subject_key",
]

Document = dict[str, Any]

SCHEMA = 1
UNREADABLE = "unreadable"
SEALED = ("token_set", "reauth")
# No date beyond the year 9999 fits; nothing has to be removed then.
LAST_DATE = 253_402_300_799.0

SESSION_INDEXES = (
    IndexModel("ends_at", name="ends_at", expireAfterSeconds=0),
    # Partial: sessions without credentials would all have the one key "none".
    IndexModel(
        "credentials.digest",
        name="credential",
        unique=True,
        partialFilterExpression={"credentials.digest": {"$exists": True}},
    ),
    IndexModel([("user_id", ASCENDING), ("created_at", ASCENDING)], name="user"),
    IndexModel("grants.client_id", name="client", sparse=True),
    IndexModel("reauth_digest", name="reauth", sparse=True),
    IndexModel("sid", name="sid", sparse=True),
    IndexModel("subject", name="subject", sparse=True),
    IndexModel("token_set_key", name="token_set_key", sparse=True),
    IndexModel("reauth_key", name="reauth_key", sparse=True),
)
RECORD_INDEXES = (
    IndexModel("ends_at", name="ends_at", expireAfterSeconds=0),
    IndexModel("value_key", name="value_key", sparse=True),
)
KEPT_INDEXES = (*RECORD_INDEXES, IndexModel([("kind", ASCENDING), ("expires_at", ASCENDING)], name="kind"))


class UnreadableDocumentError(Exception):
    """A stored session is none that this version can read. Says which, and nothing of its content."""


def date(seconds: float) -> datetime:
    """Epoch seconds as MongoDB's TTL index wants them."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), LAST_DATE), UTC)


def subject_key(issuer: str, subject: str) -> str:
    """The field `subject`: claims themselves are text, which no index sees into."""
    return f"{issuer}|{subject}"


def expired(document: Mapping[str, Any], now: float) -> bool:
    """Whether the session has ended by `now`. One whose times cannot be read has not."""
    times = document.get("expires_at"), document.get("idle_expires_at")
    return any(isinstance(time, int | float) and time <= now for time in times)


# -- writing ---------------------------------------------------------------------------------------------------------


def session_document(session: Session, keyring: Keyring) -> Document:
    """The document of a session. A field without a value is absent."""
    fields: Document = {
        "_id": session.id,
        "schema": SCHEMA,
        "version": session.version,
        "user_id": session.user_id,
        "created_at": session.created_at,
        "last_seen": session.last_seen,
        "expires_at": session.expires_at,
        "idle_expires_at": session.idle_expires_at,
        "ends_at": date(session.ends_at),
        "scopes": sorted(session.scopes),
        "permissions": sorted(session.permissions),
        "subscription": session.subscription,
        "claims": json.dumps(dict(session.claims)),
        "credentials": [_credential_document(credential) for credential in session.credentials],
        "grants": [_grant_document(grant) for grant in session.grants] or None,
        "token_set": _seal_token_set(session, keyring),
        "token_version": session.token_version,
        "state": session.state.value,
        "reauth": _seal_reauth(session, keyring),
        "reauth_digest": None if session.reauth is None else session.reauth.digest(),
        "reauth_reason": session.reauth_reason,
        "refresh": refresh_document(session.refresh),
        "sid": session.sid,
        "subject": None if session.subject is None else subject_key(*session.subject),
        "enriched_at": session.enriched_at,
        "client": session.client,
    }
    fields |= {f"{name}_key": key_name(fields[name]) for name in SEALED if fields[name] is not None}
    return {name: value for name, value in fields.items() if value is not None}


def key_name(sealed: bytes) -> str:
    """The id of the key that a value was sealed with, in hex: what stands beside each sealed value, to be counted."""
    return Keyring.key_id_of(sealed).hex()


def refresh_document(state: RefreshState) -> Document:
    """The subdocument of a refresh state, every field present."""
    return {
        "owner": state.owner,
        "until": state.until,
        "fence": state.fence,
        "intent": state.intent,
        "presented": state.presented,
        "not_before": state.not_before,
        "failures": state.failures,
    }


def assignments(document: Mapping[str, Any], names: Iterable[str]) -> Document:
    """The `$set` of an update pipeline that gives a row these fields of `document`: no value is an expression there,
    and an absent field goes."""
    return {name: {"$literal": document[name]} if name in document else "$$REMOVE" for name in names}


def ends_at_expression() -> Document:
    """`ends_at` in an update pipeline, from the row's own times."""
    seconds = {"$min": ["$expires_at", "$idle_expires_at", LAST_DATE]}
    return {"$toDate": {"$toLong": {"$multiply": [{"$max": [seconds, 0]}, 1000]}}}


def _credential_document(credential: Credential) -> Document:
    document: Document = {
        "digest": credential.digest,
        "kind": credential.kind.value,
        "created_at": credential.created_at,
        "expires_at": credential.expires_at,
    }
    if credential.parent is not None:
        document["parent"] = credential.parent
    if credential.grant is not None:
        document["grant"] = credential.grant
        document["audience"] = list(credential.audience)
    if credential.scopes is not None:
        document["scopes"] = sorted(credential.scopes)
    return document


def _grant_document(grant: Grant) -> Document:
    fields: Document = {
        "id": grant.id,
        "client_id": grant.client_id,
        "redirect_uri": grant.redirect_uri,
        "audience": list(grant.audience),
        "scopes": sorted(grant.scopes),
        "created_at": grant.created_at,
        "last_used": grant.last_used,
        "name": grant.name,
        "challenge": grant.challenge,
        "pending": grant.pending,
        "refreshes": grant.refreshes,
        "refused": sorted(grant.refused),
        "refresh_token": grant.refresh_token,
        "spent": [
            {"digest": spent.digest, "successor": spent.successor, "spent_at": spent.spent_at} for spent in grant.spent
        ],
        "access_token": grant.access_token,
        "answered": grant.answered,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _seal_token_set(session: Session, keyring: Keyring) -> bytes | None:
    token_set = session.token_set
    if token_set is None:
        return None
    content = {
        "access_token": token_set.access_token.reveal(),
        "refresh_token": token_set.refresh_token.reveal() if token_set.refresh_token is not None else None,
        "issued_at": token_set.issued_at,
        "expires_at": token_set.expires_at,
        "scopes": sorted(token_set.scopes),
    }
    return keyring.seal(json.dumps(content).encode(), context("token_set", session.id, session.user_id))


def _seal_reauth(session: Session, keyring: Keyring) -> bytes | None:
    if session.reauth is None:
        return None
    return keyring.seal(session.reauth.reveal().encode(), context("reauth", session.id, session.user_id))


# -- reading ---------------------------------------------------------------------------------------------------------


def session_from(document: Mapping[str, Any], keyring: Keyring) -> Session:
    """The session of a document. Raises `UnreadableDocumentError`.

    A sealed value that no key opens costs the user a new sign-in, not the session: it comes back in need of
    reauthorization, for the reason "unreadable" where the row gives no better one.
    """
    schema = document.get("schema")
    if schema != SCHEMA:
        raise UnreadableDocumentError(f"session {document.get('_id')!r}: schema {schema!r}")
    try:
        return _session(document, keyring)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The cause may quote a value.
        raise UnreadableDocumentError(f"session {document.get('_id')!r}: {type(error).__name__}") from None


def credential_digests(document: Mapping[str, Any]) -> list[bytes]:
    """The digests of the session's credentials; none where the document is not of our form."""
    try:
        return [credential["digest"] for credential in document["credentials"]]
    except (KeyError, TypeError):
        return []


def _session(document: Mapping[str, Any], keyring: Keyring) -> Session:
    get = document.get
    session_id, user_id = document["_id"], document["user_id"]
    state = SessionState(document["state"])
    reauth_reason = get("reauth_reason")
    token_set = reauth = None
    try:
        if (sealed := get("reauth")) is not None:
            reauth = Secret(keyring.open(sealed, context("reauth", session_id, user_id)).decode())
        if (sealed := get("token_set")) is not None:
            token_set = _token_set(keyring.open(sealed, context("token_set", session_id, user_id)))
    except UnsealError:
        if state is SessionState.ACTIVE or reauth is None:
            reauth, reauth_reason = None, UNREADABLE
        state = SessionState.REAUTHORIZATION
    return Session(
        id=session_id,
        user_id=user_id,
        created_at=float(document["created_at"]),
        last_seen=float(document["last_seen"]),
        expires_at=float(document["expires_at"]),
        idle_expires_at=float(document["idle_expires_at"]),
        scopes=frozenset(document["scopes"]),
        permissions=frozenset(document["permissions"]),
        subscription=get("subscription"),
        claims=MappingProxyType(json.loads(document["claims"])),
        credentials=tuple([_credential(one) for one in document["credentials"]]),
        grants=tuple([_grant(one) for one in get("grants", ())]),
        token_set=token_set,
        token_version=document["token_version"],
        state=state,
        reauth=reauth,
        reauth_reason=reauth_reason,
        refresh=RefreshState(**document["refresh"]),
        sid=get("sid"),
        enriched_at=document["enriched_at"],
        client=document["client"],
        version=document["version"],
    )


def _credential(document: Mapping[str, Any]) -> Credential:
    return Credential(
        digest=document["digest"],
        kind=CredentialKind(document["kind"]),
        created_at=document["created_at"],
        expires_at=document["expires_at"],
        parent=document.get("parent"),
        grant=document.get("grant"),
        scopes=frozenset(document["scopes"]) if "scopes" in document else None,
        audience=tuple(document.get("audience", ())),
    )


def _grant(document: Mapping[str, Any]) -> Grant:
    return Grant(
        **{
            **document,
            "audience": tuple(document["audience"]),
            "scopes": frozenset(document["scopes"]),
            "refused": frozenset(document.get("refused", ())),
            "spent": tuple([SpentRefreshToken(**spent) for spent in document["spent"]]),
        }
    )


def _token_set(content: bytes) -> TokenSet:
    fields = json.loads(content)
    refresh_token = fields["refresh_token"]
    return TokenSet(
        access_token=Secret(fields["access_token"]),
        refresh_token=None if refresh_token is None else Secret(refresh_token),
        issued_at=fields["issued_at"],
        expires_at=fields["expires_at"],
        scopes=frozenset(fields["scopes"]),
    )
