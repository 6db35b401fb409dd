"""The numbered rows of what must hold, and the page that says where each is tested: `python -m tests.rows` writes it.

A row is tested where a docstring below tests/ names it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NOT_YET", "PAGE", "ROWS", "page", "where_tested"]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "security-rows.md"
ROW = re.compile(r"\b(?:SEC|REL)-\d\d\b")

ROWS = {
    "SEC-01": "A copy of the database gives nobody a token",
    "SEC-02": "Who can write to the database cannot move a token set to another user",
    "SEC-03": "Another signed-in user reaches none of my streams, sessions or results",
    "SEC-04": "A malicious MCP client gets no code or token for my account",
    "SEC-05": "A malicious MCP server in the middle cannot ride on my consent",
    "SEC-06": "A page in my browser cannot sign me in, frame, redirect or rebind",
    "SEC-07": "A hostile provider gets neither identity, memory nor the internal network",
    "SEC-08": "Nobody on the network can exhaust the server",
    "SEC-09": "Readers of logs, metrics and traces see no token",
    "SEC-10": "Forged proxy headers change nothing",
    "SEC-11": "A stolen bearer, code or refresh token is short-lived, single-use, or revoked with its family",
    "SEC-12": "Authors of event content cannot forge events",
    "SEC-13": "Without a credential: 401, a challenge without error, not a byte of the handler's output",
    "SEC-14": "Malformed, repeated and misplaced credentials: 400 or 401, no store query, no falling back",
    "SEC-15": "What is no credential of ours (codes, ids, hashes, the provider's tokens) opens nothing",
    "SEC-16": "A token for another resource opens nothing here",
    "SEC-17": "All missing scopes in one challenge; a rule that raises lets nobody in",
    "SEC-18": "Forwarded headers of unlisted peers change neither answer, issuer, cookie nor limiter",
    "SEC-19": "No spelling of a path, method or probe goes around authentication",
    "SEC-20": "Foreign Origin is 403, foreign Host 421, on loopback too; CORS is an explicit list",
    "SEC-21": "A callback's state: unknown, used, too old or from another browser is refused",
    "SEC-22": "Repeated parameters and a wrong or missing `iss` are refused",
    "SEC-23": "Each sign-in gives a new cookie; the older is dead at once; `__Host-`, HttpOnly, Secure, Lax",
    "SEC-24": "`return_to` is a local path, as a browser's URL parser sees it",
    "SEC-25": "Sign-out and consent are POSTs of our own pages; no tab brings a session back",
    "SEC-26": "Forged ID tokens of every kind are refused",
    "SEC-27": "A user is issuer and subject; unknown keys cost one request a minute",
    "SEC-28": "Metadata of another issuer, plain endpoints or redirects stop the start; no secret follows a redirect",
    "SEC-29": "Authorize: unknown client or redirect gives a page, never a redirect",
    "SEC-30": "Redirect addresses are exact; dangerous ones are refused; a port is free on loopback only",
    "SEC-31": "Client names and addresses are refused or shown escaped, under a policy without script",
    "SEC-32": "PKCE S256 is required, and its verifier checked",
    "SEC-33": "A code is used once, by its client, for its redirect, within 60 s",
    "SEC-34": "Consent is asked each time, on a page of ours with a CSRF pair",
    "SEC-35": "Consent in one browser, callback in another: refused",
    "SEC-36": "Several consent pages at once; cookies stay small",
    "SEC-37": "A resource that is unknown, repeated or wider is refused before anything is consumed",
    "SEC-38": "Exactly one `iss` in every answer to a redirect",
    "SEC-39": "A refresh by another client, wider, after revocation or past its end rotates nothing",
    "SEC-40": "Fifty refreshes with one token give one successor; reuse after the grace ends the family",
    "SEC-41": "The token endpoint answers every malformed request as its RFC says, never 500",
    "SEC-42": "Revocation: only one's own, whatever the hint; its streams end",
    "SEC-43": "A flood of registrations locks nobody out and leaves nothing behind",
    "SEC-44": "Metadata documents are never fetched from internal addresses",
    "SEC-45": "Metadata documents are bounded in size, time, redirects and cache",
    "SEC-46": "Two installations of a client do not sign each other out",
    "SEC-47": "An event cannot break out of its lines; it comes back equal",
    "SEC-48": "No Last-Event-ID leads to another's events",
    "SEC-49": "A stream ends within a second of what it stands on, with its reason, and nothing after that",
    "SEC-50": "What is revoked in one process is dead in every other",
    "SEC-51": "Revocation frees the socket of a client that does not read",
    "SEC-52": "MCP sessions, tasks and subscriptions belong to their user",
    "SEC-53": "Bad UTF-8, depth, numbers, long addresses and abrupt closes: 400, and everybody else is served",
    "SEC-54": "Each answer names its own user and is not to be kept",
    "SEC-55": "A sealed value opens whole, unchanged, in its place, under a known key, or the user signs in again",
    "SEC-56": "No secret lies in clear in the database, and no pickle",
    "SEC-57": "Query operators are text; what has expired is 401 before it is removed",
    "SEC-58": "Planted secrets are found in no log, answer, metric or dump; provider text neither",
    "SEC-59": "Keys rotate under running sessions; only what was never sealed again needs its user",
    "SEC-60": "Bodies, headers and cookies beyond the limits are refused; slow ones are closed",
    "SEC-61": "Bad attempts are limited by peer; good credentials are never locked out",
    "SEC-62": "Dependencies have floors without known vulnerabilities",
    "REL-01": "Four processes, killed and frozen at random: each refresh token once after a known outcome",
    "REL-02": "A provider that answers after three lease lengths: the lease is renewed, one call",
    "REL-03": "A holder frozen past its lease writes only on what it spent; another re-presents only after a watch",
    "REL-04": "A crash between answer and write: one re-presentation, then the user, and no loop",
    "REL-05": "A store that is away after a rotation: the new set is kept and written, the old never used",
    "REL-06": "A frozen store is 503 within a second, never 401; streams and cached sessions go on",
    "REL-07": "A fail-over of the store loses no session and no stream",
    "REL-08": "A lost change stream is noticed, and what it missed is read",
    "REL-09": "`invalid_grant` because another process won signs nobody out",
    "REL-10": "`invalid_client` is an operator's alarm, a 500 is transient, only a refusal is permanent",
    "REL-11": "Clocks that jump, processes that freeze: ticks go on, what is overdue is spread",
    "REL-12": "429 and 503 with any Retry-After: obeyed up to a cap, no call in the pause",
    "REL-13": "Token answers that are none leave the stored set alone",
    "REL-14": "Odd lifetimes, absent refresh tokens and scopes: defaults, clamps, refusals",
    "REL-15": "Dripped, huge and compressed answers are bounded in time and size",
    "REL-16": "Names that do not resolve, refused and broken connections hold up nobody",
    "REL-17": "A provider that is gone for minutes: few trial calls, a spread recovery, no sign-out",
    "REL-18": "Everybody comes back at once: spread, refused beyond capacity, nobody evicted",
    "REL-19": "SIGTERM: readiness first, streams are told, refreshes are written; a second one is at once",
    "REL-20": "A client that does not read costs a bounded buffer and delays nobody",
    "REL-21": "Ending a stalled stream frees task, handler and descriptor",
    "REL-22": "A peer that vanished is noticed by the kernel's user timeout",
    "REL-23": "Descriptors run out: refused, one line in the log, no spinning, and recovery",
    "REL-24": "Half-open requests are closed; others are served",
    "REL-25": "A loop that stood still signs nobody out",
    "REL-26": "Clients that leave in the middle take nothing from others and leave no error behind",
    "REL-27": "One unreadable document or failing refresh concerns itself alone",
    "REL-28": "Streams come and go, and memory, tasks and descriptors are back where they were",
    "REL-29": "Fifty requests with an expired token make one call",
    "REL-30": "Our own token answer is lost: the retry gives the same successor",
    "REL-31": "A dead StatsD harms nothing",
    "REL-32": "Random sequences of issue, refresh, crash, revoke, expire, rotate on every store keep the invariants",
}

NOT_YET: dict[str, str] = {}
"""Rows without a test, or with a part of them not shown: why."""


def where_tested() -> dict[str, set[str]]:
    """The modules below tests/ whose docstrings name each row."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in sorted((ROOT / "tests").rglob("*.py")):
        for row in _rows_of(module):
            found[row].add(module.relative_to(ROOT).as_posix())
    return dict(found)


def _rows_of(module: Path) -> Iterator[str]:
    if module == Path(__file__):
        return
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ROW.findall(ast.get_docstring(node) or "")


def page() -> str:
    """The page as it should be."""
    where = where_tested()
    lines = [
        "# What must hold, row by row",
        "",
        "Attacks (SEC) and faults (REL) by number, with the tests that show each row. The page is written by "
        "`python -m tests.rows` from the docstrings of the tests, and a test compares the two.",
        "",
        "| row | what | where | result |",
        "|---|---|---|---|",
    ]
    for row, what in ROWS.items():
        modules = ", ".join(f"`{module.removeprefix('tests/')}`" for module in sorted(where.get(row, ())))
        result = f"{'holds in part' if modules else 'not shown'}: {NOT_YET[row]}" if row in NOT_YET else "holds"
        lines.append(f"| {row} | {what} | {modules or '-'} | {result} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
