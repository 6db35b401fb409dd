"""Look-ups by credential that come together go together, and none pays for another."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from pymongo import MongoClient

from tests.stores.backends import MongoBackend, make_session
from tornado_sse_auth.errors import StoreUnavailableError


def profile(mongo: MongoBackend, level: int) -> list[dict[str, Any]]:
    """Set the profiler of the database; what it has seen of the sessions' look-ups until then."""
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        database = client[mongo.name]
        database.command("profile", level)
        return list(database["system.profile"].find({"command.find": "sessions"}))


async def test_a_burst_is_few_commands(mongo: MongoBackend) -> None:
    """Each question gets its own answer, asked once or often, known or not, and a caller who leaves takes nobody
    along. What is written after a question was answered shows in the next."""
    store = await mongo.open()
    sessions = [make_session(mongo.clock, f"s{number}") for number in range(100)]
    for session in sessions:
        await store.insert(session)
    digests = [session.credentials[0].digest for session in sessions]
    await asyncio.to_thread(profile, mongo, 2)
    questions = [*digests, *digests, *(os.urandom(32) for _ in range(20))]
    asked = [asyncio.create_task(store.find_by_credential(digest)) for digest in questions]
    left = asked[7]
    await asyncio.sleep(0)
    left.cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[7], asyncio.CancelledError)
    assert found[:7] == sessions[:7]
    assert found[8:] == [*sessions[8:], *sessions, *[None] * 20]
    commands = await asyncio.to_thread(profile, mongo, 0)
    assert 1 <= len(commands) <= 16, [command["command"] for command in commands]
    await store.delete("s3")
    assert await asyncio.gather(*map(store.find_by_credential, digests[2:5])) == [sessions[2], None, sessions[4]]


async def test_what_cannot_be_decoded_harms_its_own_question_only(mongo: MongoBackend) -> None:
    """And a reply that does not hold all of them is read on."""
    store = await mongo.open()
    big = {"text": "x" * 1_450_000}  # twelve of them are just more than a reply of 16 MB
    sessions = [make_session(mongo.clock, f"s{number}", claims=big) for number in range(12)]
    for session in sessions:
        await store.insert(session)
    digests = [session.credentials[0].digest for session in sessions]
    assert await asyncio.gather(*map(store.find_by_credential, digests)) == sessions

    def damage() -> None:
        with MongoClient[dict[str, Any]](mongo.uri) as client:
            # A date that Python has no word for.
            change = [{"$set": {"client": {"$toDate": {"$toLong": 9_000_000_000_000_000}}}}]
            client[mongo.name]["sessions"].update_one({"_id": "s5"}, change)

    await asyncio.to_thread(damage)
    found = await asyncio.gather(*map(store.find_by_credential, digests), return_exceptions=True)
    assert isinstance(found.pop(5), StoreUnavailableError)
    assert found == sessions[:5] + sessions[6:]
