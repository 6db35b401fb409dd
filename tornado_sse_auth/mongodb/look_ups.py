"""Look-ups by one field: those of one turn of the loop travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Any, cast

from bson.errors import BSONError
from pymongo.errors import AutoReconnect

from ..errors import StoreUnavailableError
from .calls import bounded

__all__ = ["LookUps"]

Document = dict[str, Any]
Question = tuple[bytes, "asyncio.Future[Document | None]"]

TOGETHER = 64  # look-ups in one command


class LookUps:
    """Documents of `source` by the value of `field`, which has a unique index. A call of the driver costs far more
    than what it brings, so a burst of requests pays for few of them; one alone waits for one turn of the loop.

    Nothing is answered by a read that began before the question. `values`: what `field` holds in a document.
    """

    def __init__(self, source: Any, field: str, values: Callable[[Document], Iterable[bytes]]) -> None:
        self._source = source
        self._field = field
        self._values = values
        self._waiting: list[Question] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def find(self, value: bytes) -> Document | None:
        """The document that has `value`. Raises `StoreUnavailableError`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Document | None] = loop.create_future()
        self._waiting.append((value, answer))
        if len(self._waiting) == 1:
            # In no request's context: the command is several requests', and a deadline of one is not the others'.
            loop.call_soon(self._send, context=Context())
        return await answer

    async def close(self) -> None:
        """Give up what is under way. Twice is once."""
        tasks = list(self._asking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), TOGETHER):
            task = asyncio.create_task(self._ask(waiting[first : first + TOGETHER]), name=f"look up {self._field}")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, questions: Sequence[Question]) -> None:
        reason: str | None = "the look-up was given up"
        found: dict[bytes, Document] | None = None
        try:
            found = await self._found([value for value, _ in questions])
        except StoreUnavailableError as error:
            reason = error.reason
        except BSONError:
            if len(questions) == 1:
                reason = "the document cannot be decoded"
            else:  # which is no other question's fault
                for question in questions:
                    await self._ask([question])
        finally:
            for value, answer in questions:
                if answer.done():
                    continue
                if found is None:
                    answer.set_exception(StoreUnavailableError(reason=reason))
                else:
                    answer.set_result(found.get(value))

    async def _found(self, values: list[bytes]) -> dict[bytes, Document]:
        """A command costs a tenth less than a cursor. The driver tries one only once, so what a change of primary
        breaks goes the driver's usual way, as does what does not fit one reply."""
        source = self._source
        query = {self._field: values[0] if len(values) == 1 else {"$in": values}}
        command = {"find": source.name, "filter": query, "batchSize": len(values) + 1}
        with bounded():
            try:
                answer = await source.database.command(command, codec_options=source.codec_options)
            except AutoReconnect:
                answer = None
            if answer is None or answer["cursor"]["id"]:
                documents = cast("list[Document]", await source.find(query).to_list(None))
            else:
                documents = answer["cursor"]["firstBatch"]
        return {value: document for document in documents for value in self._values(document)}
