"""Random sealed values and session documents, whole and tampered with: they open in their place, or not at all."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.security.drawn import JSON, raises
from tornado_sse_auth.identity import Credential, CredentialKind, RefreshState, Secret, Session, SessionState, TokenSet
from tornado_sse_auth.sealing import Keyring, UnsealError, context
from tornado_sse_auth.stores.documents import UnreadableDocumentError, session_document, session_from

# -- what is stored ---------------------------------------------------------------------------------------------------

KEYRING = Keyring([bytes(range(32)), bytes(range(1, 33))])


@given(st.binary(max_size=60), st.lists(st.text(max_size=5) | st.binary(max_size=5), max_size=4), st.data())
def test_sealed_value(plaintext: bytes, place: list[str | bytes], data: st.DataObject) -> None:
    """SEC-55: it opens in its place, whole and unchanged; no change of a byte, a cut, a longer one or another place."""
    sealed = KEYRING.seal(plaintext, context(*place))
    assert KEYRING.open(sealed, context(*place)) == plaintext
    at = data.draw(st.integers(0, len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[at] ^= data.draw(st.integers(1, 255))
    other = data.draw(st.lists(st.text(max_size=5) | st.binary(max_size=5), max_size=4))
    attempts = [(bytes(flipped), place), (sealed[:at], place), (sealed + b"\0", place), (b"", place)]
    if context(*other) != context(*place):
        attempts.append((sealed, other))
    for value, where in attempts:
        with pytest.raises(UnsealError):
            KEYRING.open(value, context(*where))


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
@example([b"ab", b"c"], [b"a", b"bc"])
@example([b""], [])
def test_places_are_told_apart(one: list[bytes], other: list[bytes]) -> None:
    """SEC-02, SEC-55: two lists of parts are the same place only where they are the same."""
    assert (context(*one) == context(*other)) == (one == other)


TIME = st.floats(0, 2**31)
NAMES = st.frozensets(st.text(max_size=6), max_size=3)
SECRETS = st.text(min_size=1, max_size=10).map(Secret)
CREDENTIALS = st.builds(
    Credential,
    digest=st.binary(min_size=32, max_size=32),
    kind=st.sampled_from(CredentialKind),
    created_at=TIME,
    expires_at=TIME,
    parent=st.none() | st.binary(min_size=32, max_size=32),
)
SESSIONS = st.builds(
    Session,
    id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    user_id=st.text(min_size=1, max_size=10),
    created_at=TIME,
    last_seen=TIME,
    expires_at=TIME,
    idle_expires_at=TIME,
    scopes=NAMES,
    permissions=NAMES,
    subscription=st.none() | st.text(max_size=5),
    claims=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    credentials=st.lists(CREDENTIALS, max_size=3).map(tuple),
    token_set=st.none()
    | st.builds(
        TokenSet,
        access_token=SECRETS,
        refresh_token=st.none() | SECRETS,
        issued_at=TIME,
        expires_at=TIME,
        scopes=NAMES,
    ),
    token_version=st.integers(0, 2**31),
    state=st.sampled_from(SessionState),
    reauth=st.none() | SECRETS,
    reauth_reason=st.none() | st.text(max_size=5),
    refresh=st.builds(RefreshState, owner=st.none() | st.text(max_size=5), until=TIME, presented=st.integers(0, 2)),
    sid=st.none() | st.text(max_size=5),
    enriched_at=TIME,
    client=st.text(max_size=5),
    version=st.integers(1, 2**31),
)


def same(one: Any, other: Any) -> bool:
    """Equality for which NaN, which claims may hold, is itself."""
    return repr(one) == repr(other) if isinstance(one, float) else bool(one == other)


@given(SESSIONS)
@example(
    Session(
        id="0" * 32, user_id="$where.x", created_at=0.0, last_seen=0.0, expires_at=1.0, idle_expires_at=1.0,
        claims={"$where": {"a.b": float("nan")}, "": "\0"}, version=1,
    )
)  # fmt: skip
def test_session_document(session: Session) -> None:
    """SEC-56: a session comes back as it was stored, and its document has no secret in clear."""
    document = session_document(session, KEYRING)
    back = session_from(document, KEYRING)
    for field in dataclasses.fields(Session):
        if field.name != "claims":
            assert same(getattr(back, field.name), getattr(session, field.name)), field.name
    assert json.dumps(dict(back.claims)) == json.dumps(dict(session.claims))
    assert not {"access_token", "refresh_token"} & set(document)


@given(SESSIONS, st.data())
def test_session_document_that_was_tampered_with(session: Session, data: st.DataObject) -> None:
    """SEC-02, SEC-55, REL-27: any field gone, replaced by anything, or taken from another session: an unreadable
    document, a session that needs its user, or a session; no other error, and never another session's tokens."""
    other = session_document(data.draw(SESSIONS), KEYRING)
    document = session_document(session, KEYRING)
    for name in data.draw(st.lists(st.sampled_from(sorted({*document, "token_set", "reauth"})), max_size=4)):
        change = data.draw(st.sampled_from(["remove", "replace", "steal"]))
        if change == "remove":
            document.pop(name, None)
        elif change == "steal" and name in other:
            document[name] = other[name]
        else:
            document[name] = data.draw(JSON | st.binary(max_size=40))
    back = raises(UnreadableDocumentError, lambda: session_from(document, KEYRING))
    if back is not None and back.token_set is not None:
        assert back.token_set == session.token_set or (back.id, back.user_id) == (other["_id"], other["user_id"])
