"""The command line of the operator's tool. Pure but for the environment it is given."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ..identity import Secret

__all__ = ["Arguments", "parse"]

EPILOG = """\
Options from the environment: SSE_AUTH_MONGODB_URI, SSE_AUTH_MONGODB_DATABASE, SSE_AUTH_ENCRYPTION_KEYS,
SSE_AUTH_ISSUER, SSE_AUTH_CLIENT_ID, SSE_AUTH_CLIENT_SECRET. Give secrets so: others on the machine can read a command
line.

Exit status: 0 done; 1 there is no such session, or something is not as it should be; 2 the command or the
configuration is wrong; 3 MongoDB does not answer; 130 interrupted.
"""


class Arguments(argparse.Namespace):
    """What the command line and the environment say; secrets are `Secret`s."""

    command: str
    action: str
    mongodb_uri: Secret | None
    mongodb_database: str
    encryption_keys: Secret | None
    issuer: str | None
    client_id: str | None
    client_secret: Secret | None
    json: bool
    yes: bool
    session_ids: list[str]
    session_id: str
    user_id: str
    client: str
    user: str | None
    after: str
    limit: int
    create: bool


def parse(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Arguments:
    """From a command line without the program's name (None: that of the process). Exits with status 2, or with 0 for
    --help, as argparse does."""

    def given(name: str) -> str | None:
        return environment.get(f"SSE_AUTH_{name}") or None

    common = argparse.ArgumentParser(add_help=False)
    place = common.add_argument_group("where")
    uri, keys, secret = (given(name) for name in ("MONGODB_URI", "ENCRYPTION_KEYS", "CLIENT_SECRET"))
    place.add_argument("--mongodb-uri", type=Secret, metavar="URI", default=uri and Secret(uri))
    place.add_argument("--mongodb-database", metavar="NAME", default=given("MONGODB_DATABASE") or "tornado_sse_auth")
    place.add_argument(
        "--encryption-keys",
        type=Secret,
        metavar="KEYS",
        default=keys and Secret(keys),
        help="base64 keys of 32 bytes, separated by commas: the first seals, all open",
    )
    common.add_argument("--json", action="store_true", help="one JSON document on standard output")

    changing = argparse.ArgumentParser(add_help=False)
    changing.add_argument("--yes", action="store_true", help="do not ask")

    ending = argparse.ArgumentParser(add_help=False)
    provider = ending.add_argument_group(
        "the provider: with these and the keys, the sessions' tokens are revoked there, too"
    )
    provider.add_argument("--issuer", metavar="URL", default=given("ISSUER"))
    provider.add_argument("--client-id", metavar="ID", default=given("CLIENT_ID"))
    provider.add_argument("--client-secret", type=Secret, metavar="SECRET", default=secret and Secret(secret))

    parser = argparse.ArgumentParser(
        prog="python -m tornado_sse_auth",
        description="Sessions, encryption keys and indexes of a deployment.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sessions = commands.add_parser("sessions", help="look at sessions, and end them in every process")
    actions = sessions.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[common], help="all sessions, or one user's")
    listing.add_argument("--user", metavar="USER_ID")
    listing.add_argument("--limit", type=_count, default=100, metavar="N", help="at most so many (100)")
    listing.add_argument("--after", default="", metavar="SESSION_ID", help="go on after this one")
    show = actions.add_parser("show", parents=[common], help="one session; no secret is shown")
    show.add_argument("session_id", metavar="SESSION_ID")
    revoke = actions.add_parser("revoke", parents=[common, changing, ending], help="end these sessions")
    revoke.add_argument("session_ids", nargs="+", metavar="SESSION_ID")
    revoke_user = actions.add_parser("revoke-user", parents=[common, changing, ending], help="end all of one user's")
    revoke_user.add_argument("user_id", metavar="USER_ID")
    revoke_client = actions.add_parser(
        "revoke-client",
        parents=[common, changing, ending],
        help="end what a client (software) was allowed, by everybody; the sessions stay; needs the keys",
    )
    revoke_client.add_argument("client", metavar="CLIENT_ID")
    actions.add_parser(
        "revoke-all",
        parents=[common, changing, ending],
        help="end everybody's: for when the database or a key was stolen",
    )

    keys_parser = commands.add_parser("keys", help="which encryption keys stored values need")
    actions = keys_parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("status", parents=[common], help="count values by key")
    actions.add_parser(
        "reseal", parents=[common, changing], help="seal again, with the first key, what older ones have sealed"
    )

    indexes = commands.add_parser("indexes", parents=[common, changing], help="compare indexes with what is needed")
    indexes.add_argument("--create", action="store_true", help="make those that are missing")
    return parser.parse_args(arguments, namespace=Arguments())


def _count(text: str) -> int:
    number = int(text)
    if not 0 < number <= 100_000:
        raise argparse.ArgumentTypeError("must be between 1 and 100000")
    return number
