"""The sample's content: what a file must have, what a search finds, and who hears of a change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sample_server.content import ContentFolder, ContentWatch, parse_article, search

ARTICLE = "---\ntitle: Tea: a leaf\nsummary: What it is\n---\nLeaves in water.\n"


@pytest.mark.parametrize(
    "source", ["", "text", "---\ntitle: x\n---\ntext", "---\ntitle: x\nsummary: y\n---\n \n", "a" + ARTICLE]
)
def test_a_file_that_is_no_article(source: str) -> None:
    with pytest.raises(ValueError, match="tea"):
        parse_article("tea", source)


async def test_the_collection_is_whole_and_can_be_searched() -> None:
    articles = await ContentFolder().articles()
    assert len(articles) >= 12
    assert parse_article("tea", ARTICLE).title == "Tea: a leaf"
    levels = {article.subscription for article in articles.values()}
    assert levels == {None, "pro"}
    for article in articles.values():
        assert 100 <= len(article.text.split()) <= 400, article.slug
        # A text is found by its own title, before all others.
        assert search(articles.values(), article.title)[0] == article
    assert [article.slug for article in search(articles.values(), "PKCE verifier")][:1] == ["pkce"]
    assert search(articles.values(), "heartb")[0].slug == "heartbeats"
    assert search(articles.values(), "zebra") == search(articles.values(), " ?! ") == []


async def test_a_change_is_told_until_somebody_has_heard_it(tmp_path: Path) -> None:
    tea, coffee = tmp_path / "tea.md", tmp_path / "coffee.md"
    tea.write_text(ARTICLE)
    told: list[str] = []
    heard = asyncio.Event()
    deaf = False

    async def changed(slug: str) -> None:
        if deaf:
            raise ConnectionError
        told.append(slug)
        heard.set()

    folder = ContentFolder(tmp_path)
    watch = ContentWatch(folder, changed, interval=0.01)
    await watch.start()
    await watch.close()
    await watch.look()
    assert told == []
    tea.write_text(ARTICLE + "More.\n")
    coffee.write_text("no article")
    deaf = True
    with pytest.raises(ConnectionError):
        await watch.look()
    deaf = False
    await watch.look()
    assert told == ["coffee", "tea"]
    assert list(await folder.articles()) == ["tea"]
    coffee.unlink()
    await watch.start()
    heard.clear()
    try:
        tea.write_text(ARTICLE)
        async with asyncio.timeout(10):
            await heard.wait()
        assert told == ["coffee", "tea", "tea"]
    finally:
        await watch.close()
        await watch.close()
