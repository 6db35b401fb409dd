"""`subscriptions/listen`: the open listen streams of this process, and what is told to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY, ServerEvent, SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import event_matches, event_to_notification
from mcp_types import (
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)
from mcp_types.jsonrpc import INVALID_REQUEST, RequestId
from pydantic import BaseModel

from ..errors import ForbiddenError
from ..sessions.requirements import NO_REQUIREMENTS, Requirements
from .access import AccessRules
from .caller import current_caller
from .message_stream import MessageStream
from .messages import encode
from .subscribed import check_watched

__all__ = ["Listening"]


@dataclass(frozen=True, slots=True)
class _Interest:
    honored: SubscriptionFilter
    uris: frozenset[str]
    request_id: RequestId


class Listening:
    """Serves `subscriptions/listen` in place of the SDK's handler, which holds a task and a buffer a stream, and tells
    everybody who asks about resources that they may not read. Streams count for the limits of all streams."""

    def __init__(self, bus: SubscriptionBus, rules: AccessRules) -> None:
        self._bus = bus
        self._rules = rules
        self._streams: dict[MessageStream, _Interest] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._streams)

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Acknowledge and register; the result is sent when the stream ends. Raises `MCPError`."""
        caller = current_caller()
        if ctx.request_id is None:
            raise MCPError(INVALID_REQUEST, "subscriptions/listen needs a request of its own")
        check_watched(params.notifications.resource_subscriptions or ())
        honored, needed = self._honored(params.notifications)
        caller.requirements = self._rules.both(caller.requirements, needed)
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        acknowledged = SubscriptionsAcknowledgedNotification(
            params=SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
        )
        stream = caller.listen(_wire(acknowledged))
        interest = _Interest(honored, frozenset(honored.resource_subscriptions or ()), ctx.request_id)
        self._add(stream, interest)
        return SubscriptionsListenResult(_meta=meta)

    def _honored(self, asked: SubscriptionFilter) -> tuple[SubscriptionFilter, Requirements]:
        """What the user may be told of, and what that takes: a stream whose user loses it ends."""
        caller = current_caller()
        allowed: list[str] = []
        needed = NO_REQUIREMENTS
        for uri in asked.resource_subscriptions or ():
            rule = self._rules.resource(uri)
            try:
                rule.check(caller.user, caller.subscription_levels)
            except ForbiddenError:
                continue
            allowed.append(uri)
            needed = self._rules.both(needed, rule)
        honored = SubscriptionFilter(
            tools_list_changed=asked.tools_list_changed or None,
            prompts_list_changed=asked.prompts_list_changed or None,
            resources_list_changed=asked.resources_list_changed or None,
            resource_subscriptions=allowed or None,
        )
        return honored, needed

    def _add(self, stream: MessageStream, interest: _Interest) -> None:
        if stream.ended is not None:
            return
        if self._unsubscribe is None:
            self._unsubscribe = self._bus.subscribe(self._tell)
        self._streams[stream] = interest
        ended = stream.on_end

        def forget() -> None:
            self._streams.pop(stream, None)
            if not self._streams and self._unsubscribe is not None:
                self._unsubscribe()
                self._unsubscribe = None
            if ended is not None:
                ended()

        stream.on_end = forget

    def _tell(self, event: ServerEvent) -> None:
        """Encoded once for all whose subscription has the same id: clients count from the same number."""
        frames: dict[RequestId, bytes] = {}
        for stream, interest in tuple(self._streams.items()):
            if not event_matches(interest.honored, interest.uris, event):
                continue
            frame = frames.get(interest.request_id)
            if frame is None:
                meta = {SUBSCRIPTION_ID_META_KEY: interest.request_id}
                frame = frames[interest.request_id] = encode(_wire(event_to_notification(event, meta)))
            stream.push(frame)


def _wire(message: BaseModel) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **message.model_dump(mode="json", by_alias=True, exclude_none=True)}
