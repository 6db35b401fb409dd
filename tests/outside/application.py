"""An application of somebody else's: written from the README, installed beside the wheel, knowing no file of ours.

python application.py PORT ISSUER CLIENT_ID CLIENT_SECRET
"""

import asyncio
import signal
import sys

import httpx
import tornado.web

from tornado_sse_auth import MemorySessionStore, OAuthProvider, SSEAuthenticationMiddleware, SSEAuthMixin

PORT, ISSUER, CLIENT_ID, CLIENT_SECRET = sys.argv[1:]


class Me(SSEAuthMixin, tornado.web.RequestHandler):
    def get(self):
        user = self.current_user
        self.write(
            {
                "user_id": user.user_id,
                "session_id": user.session_id,
                "scopes": sorted(user.scopes),
                "permissions": sorted(user.permissions),
                "subscription": user.subscription,
                "name": user.claims["name"],
            }
        )


class Prices(SSEAuthMixin, tornado.web.RequestHandler):
    required_scopes = {"content:read"}

    async def get(self):
        async with self.event_stream() as stream:
            await stream.follow("prices")

    async def post(self):
        self.require(scopes={"events:write"})
        number = await auth.events.publish("prices", {"price": int(self.request.body)}, event="price")
        self.write({"id": str(number)})


class Trade(SSEAuthMixin, tornado.web.RequestHandler):
    required_permissions = {"trade"}

    def get(self):
        self.write({"may": "trade"})


class Reports(SSEAuthMixin, tornado.web.RequestHandler):
    required_subscription = "pro"

    def get(self):
        self.write({"may": "read reports"})


class Profile(SSEAuthMixin, tornado.web.RequestHandler):
    async def get(self):
        token = await self.upstream_access_token()
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"Authorization": f"Bearer {token.reveal()}"}
            answer = await client.get(f"{ISSUER}/me", headers=headers)
        self.set_status(answer.status_code)
        self.write(answer.json())


provider = OAuthProvider(
    issuer=ISSUER,
    client_id=CLIENT_ID,
    client_secret=CLIENT_SECRET,
    scopes="openid offline_access profile content:read events:write",
)
auth = SSEAuthenticationMiddleware(
    MemorySessionStore(),
    provider,
    public_url=f"http://127.0.0.1:{PORT}",
    subscription_levels=("free", "pro"),
)
app = tornado.web.Application(
    [
        ("/me", Me),
        ("/prices", Prices),
        ("/trade", Trade),
        ("/reports", Reports),
        ("/profile", Profile),
        *auth.routes(),
    ],
    sse_auth=auth,
)


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await auth.start()
    app.listen(int(PORT), "127.0.0.1", **auth.http_server_options())
    try:
        await stop.wait()
    finally:
        await auth.close()


if __name__ == "__main__":
    asyncio.run(main())
