"""The sample's content: short texts in a folder, one file each, read afresh whenever somebody asks."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tornado_sse_auth import AuthError

__all__ = ["CONTENT", "Article", "ContentFolder", "ContentWatch", "parse_article", "search"]

_log = logging.getLogger(__name__)
CONTENT = Path(__file__).parent / "content"
_WORD = re.compile(r"[a-z0-9]+")
_TITLE_WEIGHT = 5
_SUMMARY_WEIGHT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One text. `subscription` is the level that reading it takes; None for everybody's."""

    slug: str
    title: str
    summary: str
    subscription: str | None
    text: str

    @property
    def uri(self) -> str:
        """Where MCP clients find it."""
        return f"content://{self.slug}"


def parse_article(slug: str, source: str) -> Article:
    """An article from its file: lines `name: value` between two lines of dashes, then the text.

    Raises `ValueError` where title, summary or text lack.
    """
    before, _, rest = source.partition("---\n")
    head, _, text = rest.partition("---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if before or not text.strip() or not fields.get("title") or not fields.get("summary"):
        raise ValueError(f"{slug}: an article has a title, a summary and a text")
    return Article(
        slug=slug,
        title=fields["title"],
        summary=fields["summary"],
        subscription=fields.get("subscription"),
        text=text.strip() + "\n",
    )


def search(articles: Iterable[Article], query: str) -> list[Article]:
    """The articles that have any word of `query`, those first that have the most of them; a word counts by how rare
    it is, and more in a title. The beginning of a word is a word, too."""
    articles = list(articles)
    wanted = set(_WORD.findall(query.lower()))
    words = {article.slug: _weighed(article) for article in articles}
    scores: Counter[str] = Counter()
    for word in wanted:
        found = {slug: sum(n for has, n in text.items() if has.startswith(word)) for slug, text in words.items()}
        having = sum(1 for count in found.values() if count)
        for slug, count in found.items():
            if count:
                scores[slug] += round(1000 * len(articles) / having * count / (count + 4))
    return sorted((article for article in articles if scores[article.slug]), key=lambda a: (-scores[a.slug], a.slug))


def _weighed(article: Article) -> Counter[str]:
    words: Counter[str] = Counter(_WORD.findall(article.text.lower()))
    for text, weight in ((article.title, _TITLE_WEIGHT), (article.summary, _SUMMARY_WEIGHT), (article.slug, 1)):
        for word in _WORD.findall(text.lower()):
            words[word] += weight
    return words


class ContentFolder:
    """The articles `*.md` of one folder. Files are read in a thread; one that cannot be used is left out."""

    def __init__(self, path: Path = CONTENT) -> None:
        self._path = path

    async def articles(self) -> dict[str, Article]:
        """All of them by slug, as they are now."""
        return await asyncio.to_thread(self._read)

    async def versions(self) -> dict[str, int]:
        """By slug a number that is another after each change of the file."""
        return await asyncio.to_thread(self._versions)

    def _read(self) -> dict[str, Article]:
        found: dict[str, Article] = {}
        for file in sorted(self._path.glob("*.md")):
            try:
                found[file.stem] = parse_article(file.stem, file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                _log.warning("an article is left out: %s", error)
        return found

    def _versions(self) -> dict[str, int]:
        versions: dict[str, int] = {}
        for file in self._path.glob("*.md"):
            with suppress(OSError):
                versions[file.stem] = file.stat().st_mtime_ns
        return versions


class ContentWatch:
    """Looks at a folder each `interval` seconds and awaits `changed(slug)` for each article that is another then."""

    def __init__(
        self, folder: ContentFolder, changed: Callable[[str], Awaitable[None]], *, interval: float = 1.0
    ) -> None:
        self._folder = folder
        self._changed = changed
        self._interval = interval
        self._known: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take what is there for known, and begin to look."""
        self._known = await self._folder.versions()
        self._task = asyncio.create_task(self._run(), name="watch content")

    async def close(self) -> None:
        """Stop looking. Twice is once."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """Tell of what has changed since the last look. Told again at the next look where `changed` raised."""
        versions = await self._folder.versions()
        for slug in sorted(versions.keys() | self._known.keys()):
            if versions.get(slug) != self._known.get(slug):
                await self._changed(slug)
                if slug in versions:
                    self._known[slug] = versions[slug]
                else:
                    del self._known[slug]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except AuthError as error:  # the store is away: told at a later look
                _log.warning("a change of the content could not be told: %s", error)
