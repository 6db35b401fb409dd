"""Look-ups by one field: those that come together travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Any, cast

from bson.errors import BSONError
from pymongo.errors import AutoReconnect

from ..errors import StoreUnavailableError
from .calls import bounded, undisturbed

__all__ = ["LookUps"]

Document = dict[str, Any]
Question = tuple[bytes, "asyncio.Future[Document | None]"]

TOGETHER = 16  # look-ups in one command: their requests go on in one turn of the loop
UNDER_WAY = 4  # commands at a time
PATIENCE = 0.05  # seconds: commands that take longer hold nobody up


class LookUps:
    """Documents of `source` by the value of `field`, which has a unique index. A call of the driver costs far more
    than what it brings, so a burst of requests pays for few of them: those of one turn of the loop go together, and
    while some commands are under way those of many turns. One alone waits for one turn.

    Nothing is answered by a read that began before the question. `values`: what `field` holds in a document.
    """

    def __init__(self, source: Any, field: str, values: Callable[[Document], Iterable[bytes]]) -> None:
        self._source = source
        self._field = field
        self._values = values
        self._waiting: list[Question] = []
        self._sending: asyncio.Handle | None = None
        self._asking: set[asyncio.Task[None]] = set()

    async def find(self, value: bytes) -> Document | None:
        """The document that has `value`. Raises `StoreUnavailableError`. Cancelling the caller cancels no command."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Document | None] = loop.create_future()
        self._waiting.append((value, answer))
        if self._sending is None:
            self._arrange()
        return await answer

    async def close(self) -> None:
        """Give up what waits, and what is asked for it. Twice is once."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(StoreUnavailableError(reason="the look-up was given up"))
        tasks = list(self._asking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _arrange(self) -> None:
        loop = asyncio.get_running_loop()
        # In no request's context: the command is several requests', and a deadline of one is not the others'.
        if len(self._asking) < UNDER_WAY:
            self._sending = loop.call_soon(self._send, context=Context())
        else:
            self._sending = loop.call_later(PATIENCE, self._send, context=Context())

    def _send(self) -> None:
        self._sending = None
        free = UNDER_WAY - len(self._asking)
        # None is free where commands hang: then nobody waits for them.
        going = self._waiting[: TOGETHER * free] if free > 0 else self._waiting
        self._waiting = self._waiting[len(going) :]
        for first in range(0, len(going), TOGETHER):
            task = asyncio.create_task(self._ask(going[first : first + TOGETHER]), name=f"look up {self._field}")
            self._asking.add(task)
            task.add_done_callback(self._asked)
        if self._waiting:
            self._arrange()

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if self._waiting and self._sending is not None:
            self._sending.cancel()
            self._arrange()

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

    @undisturbed
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
