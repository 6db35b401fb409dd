"""Look-ups by one field: those that come together travel together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, cast

from bson.errors import BSONError
from pymongo.errors import AutoReconnect

from ..errors import StoreUnavailableError
from .calls import GIVEN_UP_AFTER, Patience, bounded

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
        # What each command was asked for; nothing yet where it begins in the next turn. None is ever cancelled: each
        # ends by its own deadline (`bounded`).
        self._commands: dict[asyncio.Task[None], list[Question]] = {}
        # Of those, which take no longer than they should: nobody waits for the others.
        self._prompt: dict[asyncio.Task[None], Patience] = {}

    async def find(self, value: bytes) -> Document | None:
        """The document that has `value`. Raises `StoreUnavailableError`. Cancelling the caller cancels no command."""
        answer: asyncio.Future[Document | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((value, answer))
        self._arrange()
        return await answer

    async def close(self) -> None:
        """Give up what waits, and what is asked for. Twice is once."""
        waiting, self._waiting = self._waiting, []
        for questions in (waiting, *self._commands.values()):
            _refuse(questions, "the look-up was given up")

    def _arrange(self) -> None:
        if self._waiting and all(self._commands.values()):
            self._begin(UNDER_WAY - len(self._prompt))

    def _hangs(self, command: asyncio.Task[None]) -> None:
        del self._prompt[command]
        self._begin(len(self._waiting))

    def _begin(self, at_most: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(min(at_most, math.ceil(len(self._waiting) / TOGETHER))):
            questions: list[Question] = []
            # In no request's context: the command is several requests', and a deadline of one is not the others'.
            command = loop.create_task(self._ask(questions), name=f"look up {self._field}", context=Context())
            self._commands[command] = questions
            self._prompt[command] = Patience(PATIENCE, partial(self._hangs, command))
            command.add_done_callback(self._ended)

    def _ended(self, command: asyncio.Task[None]) -> None:
        del self._commands[command]
        patience = self._prompt.pop(command, None)
        if patience is not None:
            patience.cancel()
        self._arrange()

    async def _ask(self, questions: list[Question]) -> None:
        questions += self._waiting[:TOGETHER]
        del self._waiting[:TOGETHER]
        self._arrange()
        if questions:
            await self._answer(questions)

    async def _answer(self, questions: Sequence[Question]) -> None:
        reason: str | None = "the look-up was given up"
        late = "the driver did not keep its deadline"
        patience = Patience(GIVEN_UP_AFTER, partial(_refuse, questions, late))
        try:
            found = await self._found([value for value, _ in questions])
            for value, answer in questions:
                if not answer.done():
                    answer.set_result(found.get(value))
        except StoreUnavailableError as error:
            reason = error.reason
        except BSONError:
            reason = "the document cannot be decoded"
            if len(questions) > 1:  # which is no other question's fault
                for question in questions:
                    await self._answer([question])
        finally:
            patience.cancel()
            _refuse(questions, reason)

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


def _refuse(questions: Iterable[Question], reason: str | None) -> None:
    for _, answer in questions:
        if not answer.done():
            answer.set_exception(StoreUnavailableError(reason=reason))
