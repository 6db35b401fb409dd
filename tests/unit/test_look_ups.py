"""Look-ups over a database that is slow."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.streams.serving import until
from tornado_sse_auth.mongodb import LookUps
from tornado_sse_auth.mongodb.look_ups import TOGETHER, UNDER_WAY


class Source:
    """A collection of everything; its commands are answered one by one, when the test says so."""

    name = "things"
    codec_options = None

    def __init__(self) -> None:
        self.database = self
        self.open: list[asyncio.Future[None]] = []

    async def command(self, command: dict[str, Any], **_: Any) -> dict[str, Any]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        await answer
        asked = command["filter"]["value"]
        values = asked["$in"] if isinstance(asked, dict) else [asked]
        return {"cursor": {"id": 0, "firstBatch": [{"value": value} for value in values]}}


async def test_slow_commands_hold_nobody_up() -> None:
    """REL-06: a database that answers late, one command after the other, keeps no look-up from being asked."""
    source = Source()
    look_ups = LookUps(source, "value", lambda document: [document["value"]])
    many = [asyncio.create_task(look_ups.find(b"%d" % number)) for number in range(10 * UNDER_WAY * TOGETHER)]
    async with asyncio.timeout(5):
        await until(lambda: len(source.open) == 10 * UNDER_WAY)
        late = asyncio.create_task(look_ups.find(b"late"))
        for answered in range(1, 10 * UNDER_WAY - UNDER_WAY):
            if len(source.open) > 10 * UNDER_WAY:
                break
            source.open[-answered].set_result(None)
            await asyncio.sleep(0.03)
        assert len(source.open) > 10 * UNDER_WAY
        assert answered < 5
    await look_ups.close()
    await asyncio.gather(*many, late, return_exceptions=True)
    for answer in source.open:
        if not answer.done():
            answer.set_result(None)
    await asyncio.sleep(0)
