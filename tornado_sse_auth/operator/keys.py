"""`keys status | reseal`."""

from __future__ import annotations

from ..stores import SealingKeys
from ..stores.mongo_sealed import Resealed
from .arguments import Arguments
from .deployment import Deployment
from .terminal import Terminal

__all__ = ["reseal", "status"]


async def status(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """Which keys are needed; status 1 where values stand under a key that was not given."""
    deployment.require_keyring()
    keys = await deployment.store.sealing_keys()
    rows = [[key, "seals" if key == keys.ring[0] else "opens", keys.values.get(key, 0)] for key in keys.ring]
    rows += [[key, "not given", count] for key, count in sorted(keys.values.items()) if key not in keys.ring]
    lines = terminal.table(("key id", "use", "values"), rows)
    terminal.document(_document(keys), *lines, *_advice(keys))
    return 1 if keys.lost else 0


async def reseal(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """Seal again what an older key has sealed; status 1 where some of it is left."""
    deployment.require_keyring()
    before = await deployment.store.sealing_keys()
    so_far = Resealed()
    if before.outdated:
        terminal.confirm(f"Seal {before.outdated} values again with key {before.ring[0]}?")
        async for so_far in deployment.store.sealed.reseal():
            terminal.progress(f"{so_far.done} of {before.outdated} values sealed again")
        deployment.audit.write(
            "key-rotation",
            outcome="success",
            reason=f"{so_far.done} values sealed again with key {before.ring[0]} by an operator",
        )
    after = await deployment.store.sealing_keys()
    lines = [f"{so_far.done} values sealed again with key {after.ring[0]}.", *_advice(after)]
    if so_far.failed:
        lines.append(f"{so_far.failed} values were altered or moved: no key opens them where they stand.")
    terminal.document({"resealed": so_far.done, "failed": so_far.failed, **_document(after)}, *lines)
    return 1 if after.outdated or after.lost else 0


def _document(keys: SealingKeys) -> dict[str, object]:
    return {
        "ring": list(keys.ring),
        "values": dict(keys.values),
        "outdated": keys.outdated,
        "lost": keys.lost,
        "dispensable": list(keys.dispensable),
    }


def _advice(keys: SealingKeys) -> list[str]:
    lines = [f"No value needs key {key} any more: it may be dropped." for key in keys.dispensable]
    if keys.outdated:
        lines.append(
            f"{keys.outdated} values need an older key: run `keys reseal` once every process seals with the new one."
        )
    if keys.lost:
        lines.append(
            f"{keys.lost} values open with none of these keys: give the missing one, or their users sign in again."
        )
    return lines
