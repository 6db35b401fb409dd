"""The sample's MCP server: tools, resources and a prompt over the content. Copy what you need."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp.server.subscriptions import ResourceUpdated, SubscriptionBus
from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference
from pydantic import BaseModel, Field

from tornado_sse_auth import ProviderUnavailableError, SSEAuthenticationMiddleware
from tornado_sse_auth.mcp import current_user, require, requires, upstream_access_token

from .content import Article, ContentFolder, ContentWatch, search
from .events import channel_of

__all__ = ["build_mcp_server", "watch_content"]

READ = "content:read"
WRITE = "events:write"
MARKDOWN = "text/markdown"
INSTRUCTIONS = (
    "Short texts on Server-Sent Events, OAuth and MCP. search_content finds them, read_content and the resources "
    "content://{slug} give the whole text; some need the subscription pro."
)

Query = Annotated[str, Field(min_length=1, max_length=200, description="Words to look for")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$", description="The name of a text, as search_content gives it")]


class Me(BaseModel):
    """Who is signed in."""

    user_id: str
    name: str | None
    scopes: list[str]
    permissions: list[str]
    subscription: str | None


class Found(BaseModel):
    """One text that a search has found."""

    slug: str
    title: str
    summary: str
    uri: str
    subscription: str | None = Field(description="The level that reading it takes, if any")


class Published(BaseModel):
    """What became of a publication."""

    id: str = Field(description="Its number in the event log")


async def build_mcp_server(auth: SSEAuthenticationMiddleware, content: ContentFolder) -> MCPServer[Any]:
    """The server object, for an `MCPEndpoint`."""
    server: MCPServer[Any] = MCPServer("tornado_sse_auth sample", instructions=INSTRUCTIONS)
    _add_account_tools(server, auth)
    _add_content_tools(server, content)
    await _add_resources(server, content)
    return server


def watch_content(content: ContentFolder, bus: SubscriptionBus) -> ContentWatch:
    """Announces each text that changes to whoever has subscribed to it, in every process. One watch is enough."""

    async def announce(slug: str) -> None:
        await bus.publish(ResourceUpdated(uri=f"content://{slug}"))

    return ContentWatch(content, announce)


def _add_account_tools(server: MCPServer[Any], auth: SSEAuthenticationMiddleware) -> None:
    @server.tool(title="Who am I")
    async def whoami() -> Me:
        """Who is signed in, and what they may do."""
        user = current_user()
        name = user.claims.get("name") or user.claims.get("preferred_username")
        return Me(
            user_id=user.user_id,
            name=name if isinstance(name, str) else None,
            scopes=sorted(user.scopes),
            permissions=sorted(user.permissions),
            subscription=user.subscription,
        )

    @server.tool(title="My profile at the provider")
    async def upstream_profile() -> dict[str, Any]:
        """What the sign-in provider says of the user right now, asked with the user's own, fresh access token."""
        token = await upstream_access_token()
        if auth.provider is None:
            raise ToolError("This server has no provider.")
        subject = current_user().claims.get("sub")
        try:
            return dict(await auth.provider.userinfo(token, subject=subject if isinstance(subject, str) else None))
        except ProviderUnavailableError:
            raise ToolError("The provider does not answer; try again shortly.") from None

    @server.tool(title="Count down")
    async def countdown(seconds: Annotated[int, Field(ge=1, le=60)], ctx: Context[Any, Any]) -> str:
        """Count down, one number a second, and report progress."""
        for passed in range(seconds):
            await ctx.report_progress(passed, seconds, f"{seconds - passed}")
            await asyncio.sleep(1)
        await ctx.report_progress(seconds, seconds, "0")
        return f"{seconds} seconds have passed."

    @server.tool(title="Publish", meta=requires(scopes={WRITE}))
    async def publish(text: Annotated[str, Field(min_length=1, max_length=10_000)]) -> Published:
        """Send a text to every open /events stream of the same user, in every process."""
        number = await auth.events.publish(channel_of(current_user()), {"text": text, "from": "mcp"})
        return Published(id=str(number))


def _add_content_tools(server: MCPServer[Any], content: ContentFolder) -> None:
    @server.tool(title="Search", meta=requires(scopes={READ}))
    async def search_content(query: Query) -> list[Found]:
        """Find texts about Server-Sent Events, OAuth and MCP. The best come first."""
        articles = await content.articles()
        return [
            Found(
                slug=article.slug,
                title=article.title,
                summary=article.summary,
                uri=article.uri,
                subscription=article.subscription,
            )
            for article in search(articles.values(), query)[:5]
        ]

    @server.tool(title="Read", meta=requires(scopes={READ}))
    async def read_content(slug: Slug) -> str:
        """The whole text. Some texts need the subscription pro."""
        article = await _readable(content, slug)
        if article is None:
            raise ToolError(f"There is no text {slug!r}: search_content says which there are.")
        return _whole(article)

    @server.prompt(title="Summarize")
    async def summarize(slug: Slug) -> str:
        """Ask for a summary of one text."""
        article = await _readable(content, slug)
        if article is None:
            raise ValueError(f"There is no text {slug!r}.")
        return f"Summarize this text in three sentences for somebody who builds servers.\n\n{_whole(article)}"

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if argument.name != "slug":
            return None
        slugs = [slug for slug in await content.articles() if slug.startswith(argument.value)]
        return Completion(values=slugs[:100], total=len(slugs), has_more=len(slugs) > 100)


async def _add_resources(server: MCPServer[Any], content: ContentFolder) -> None:
    @server.resource(
        "content://{slug}", name="content", title="A text", mime_type=MARKDOWN, meta=requires(scopes={READ})
    )
    async def by_slug(slug: str) -> str:
        """One of the texts."""
        return await _resource(content, slug)

    # Each by itself, too: clients show them in lists, and what a text takes is then known before anybody asks for it.
    for article in (await content.articles()).values():
        _add_resource(server, content, article)


def _add_resource(server: MCPServer[Any], content: ContentFolder, article: Article) -> None:
    @server.resource(
        article.uri,
        name=article.slug,
        title=article.title,
        description=article.summary,
        mime_type=MARKDOWN,
        meta=requires(scopes={READ}, subscription=article.subscription),
    )
    async def whole() -> str:
        return await _resource(content, article.slug)


async def _resource(content: ContentFolder, slug: str) -> str:
    article = await _readable(content, slug)
    if article is None:
        raise ResourceNotFoundError(f"There is no text {slug!r}.")
    return _whole(article)


async def _readable(content: ContentFolder, slug: str) -> Article | None:
    """The text, if the current user may read it; None where there is none."""
    article = (await content.articles()).get(slug)
    if article is not None:
        require(scopes={READ}, subscription=article.subscription)
    return article


def _whole(article: Article) -> str:
    return f"# {article.title}\n\n{article.text}"
