"""Bytes that come in: bodies, lengths, times and requests that are none; everybody else is served all the while."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.security.kit import World, refused, world

HOSTILE_BODIES = [
    (b"\xff\xfe", "application/json"),
    (b"[" * 10_000, "application/json"),
    (b'{"a":' * 10_000, "application/json"),
    (b"9" * 100_000, "application/json"),
    (b"1e999999", "application/json"),
    (b'{"grant":{"$gt":""}}', "application/json"),
    (b"[]", "application/json"),
    (b"a&" * 500_000, "application/x-www-form-urlencoded"),
    (b"--b\r\n" * 200_000, "multipart/form-data; boundary=b"),
    (
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 10_000 + b"--b--",
        "multipart/form-data; boundary=b",
    ),
    (
        b"--b\r\nContent-Disposition: form-data; name=" + b'"' * 100_000 + b"\r\n\r\nx\r\n--b--",
        "multipart/form-data; boundary=b",
    ),
    (b"x", "multipart/form-data"),
]


@pytest.mark.parametrize(("body", "kind"), HOSTILE_BODIES, ids=lambda value: str(value[:24]))
async def test_hostile_bodies(running: World, body: bytes, kind: str) -> None:
    """SEC-53, SEC-57, SEC-60; CVE-2025-67725, CVE-2025-47287: 400 and no traceback, and the loop is not held up."""
    headers = {**await running.cookie(), "Origin": running.app.url, "Content-Type": kind}
    async with running.client() as client:
        with running.nothing_happens():
            refused(await client.post("/auth/token", content=body, headers=headers), 400, "invalid_request")
    assert "Traceback" not in running.log.text


async def test_what_is_too_long_or_too_slow(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-53, SEC-60, REL-24: 50 KB of URI, whoever asks, half a header, a dripped body, an abrupt close; others are
    served all the while, and what does not arrive in `request_timeout` is closed."""
    async with world(caplog, request_timeout=1.0, max_body=100_000) as running:
        host = f"Host: {running.app.url.removeprefix('http://')}\r\n".encode()
        half = [
            asyncio.create_task(running.raw(start))
            for start in (
                b"GET /me HT",
                b"GET /me HTTP/1.1\r\n" + host + b"X-Half: ",
                b"POST /me HTTP/1.1\r\n" + host + b"Content-Length: 1000\r\n\r\nx",
                b"POST /me HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
                b"",
            )
            for _ in range(40)
        ]
        bearer = {"Authorization": f"Bearer {await running.bearer()}"}
        async with running.client(headers={"Connection": "close"}) as client:
            assert (await client.get("/livez")).status_code == 200
            for path in ("/me", "/prices", "/auth/login", "/auth/callback", "/livez", "/nothing"):
                for headers in ({}, bearer):
                    refused(await client.get(f"{path}?{'a' * 50_000}", headers=headers), 400, "invalid_request")
            assert (await client.get(f"/me?{'a' * 30_000}", headers=bearer)).status_code == 200
            too_long = await running.raw(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + host + b"\r\n")
            assert b" 200 " not in too_long
            for start in (
                b"GET /me HTTP/1.1\r\n" + host,
                b"POST /me HTTP/1.1\r\n" + host + b"Content-Length: 9\r\n\r\nx",
            ):
                for _ in range(40):
                    _, gone = await asyncio.open_connection(*running.address)
                    gone.write(start)
                    gone.transport.abort()
            for answer in await asyncio.gather(*half):
                assert b" 200 " not in answer
            big = b"POST /me HTTP/1.1\r\n" + host + b"Content-Length: 104857600\r\n\r\n"
            assert b" 200 " not in await running.raw(big)
            chunked = (
                b"POST /me HTTP/1.1\r\n"
                + host
                + b"Transfer-Encoding: chunked\r\n\r\n"
                + b"fff\r\n"
                + b"a" * 4095
                + b"\r\n"
            )
            assert b" 200 " not in await running.raw(chunked + (b"fff\r\n" + b"a" * 4095 + b"\r\n") * 40)
            nasty = "; ".join(['a="' + "\\" * 20_000 + '"', "b=" + "\\101" * 5_000, ";" * 10_000, " " * 5_000 + "c"])
            for path in ("/me", "/auth/callback?state=x&code=y", "/auth/login"):
                assert (await client.get(path, headers={"Cookie": nasty})).status_code in (302, 400, 401)
            assert (await client.get("/livez")).status_code == 200
    assert "Traceback" not in caplog.text


async def test_random_requests_break_nothing(running: World) -> None:
    """SEC-53, SEC-58: requests damaged at random, each on a connection of its own: no answer above 499 but 505, no
    traceback, no word of the credential in the log, and the next good request is served."""
    chance = random.Random(53)
    bearer = await running.bearer()
    host = running.app.url.removeprefix("http://")
    close = f"Host: {host}\r\nConnection: close\r\n"
    whole = [
        f"GET /me?a=b HTTP/1.1\r\n{close}Authorization: Bearer {bearer}\r\n\r\n",
        f"POST /auth/token HTTP/1.1\r\n{close}Cookie: {running.app.cookie}={bearer}\r\nOrigin: {running.app.url}\r\n"
        'Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{"grant":"session"}',
        f"GET /prices HTTP/1.1\r\n{close}Last-Event-ID: 17\r\nAccept: text/html\r\n\r\n",
        f"POST /me HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]

    async def damaged() -> bytes:
        request = bytearray(chance.choice(whole).encode())
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(request))
            piece = bytes(chance.choices(b"\0\r\n\t :;,=/%?#\x7f\x80\xff aZ9", k=chance.randint(0, 3)))
            request[at : at + chance.randint(0, 3)] = piece
        return await running.raw(bytes(request) + b"\r\n\r\n", wait=15.0, end=True)

    for _ in range(15):
        for answer in await asyncio.gather(*(damaged() for _ in range(20))):
            status = answer.split(b" ", 2)[1:2] if answer.startswith(b"HTTP/1.1 ") else [b"none"]
            assert status[0] in (b"none", b"505") or status[0] < b"500", answer[:200]
    async with running.client() as client:
        assert (await client.get("/me", headers={"Authorization": f"Bearer {bearer}"})).status_code == 200
    assert "Traceback" not in running.log.text
    assert bearer not in running.log.text
