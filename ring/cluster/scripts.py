"""What Redis holds about the ring, and the scripts by which alone it changes.

One method per step, one Lua file per method, each atomic on the server. `Membership` decides when. A ring is
also read here (`ring status` and `ring owner` do), and a weight set, with no node up.
"""

import zlib
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import msgspec
import trio

from ring.cluster.placement import ALGORITHM
from ring.cluster.view import Member, RingView
from ring.protocol.codes import BadRequest
from ring.protocol.names import SLOTS
from ring.store.client import Redis
from ring.store.keys import Keys

SCHEMA = 1
"""The version of what Ring keeps in Redis: raised when an older release could not work beside this one."""

OLDEST_SCHEMA = 1
"""The oldest schema that this release works with."""

MAX_WEIGHT = 1000

GRACE_MS = 250
"""How long a member that is believed dead has to refute it by a renewal."""

_NAMES = ("join", "renew", "restore", "state", "weight", "leave", "suspect", "evict", "table", "read")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script answered."""

    status: str
    epoch: int = 0
    previous: int = 0
    members: tuple[Member, ...] | None = None
    """None where the script had no reason to tell them."""
    details: tuple[Any, ...] = ()
    """What follows a status that comes without members: see the script."""


class Reading(NamedTuple):
    """A ring as Redis knows it."""

    view: RingView
    renewed_s: dict[str, float]
    """Per member, for how long it has not renewed its lease."""
    ttl_s: float


class Scripts:
    """The steps of membership. Each may be repeated after `StoreUnavailable`: the second changes nothing.

    Args:
        redis: connected or not; a step waits for the connection.
        keys: of the cluster.
        ttl_ms: how long a lease lasts without being renewed.
        secret_mark: what tells the nodes' secret from another without telling it.
        now_ms: for tests: the time, in place of the server's.
    """

    def __init__(
        self, redis: Redis, keys: Keys, *, ttl_ms: int = 0, secret_mark: str = "", now_ms: int | None = None
    ) -> None:
        self.now_ms = now_ms
        self._ttl_ms = ttl_ms
        self._secret_mark = secret_mark
        self._keys = [keys.members, keys.leases, keys.epoch, keys.geometry, keys.table, keys.suspects]
        self._scripts = {name: redis.register_script(_source(name)) for name in _NAMES}

    async def join(self, me: Member, seen: int) -> Answer:
        """joined | wait (a live node has the name; ms left of its lease) | refused (what differs, value)."""
        return await self._call(
            "join",
            self._ttl_ms,
            seen,
            SLOTS,
            ALGORITHM,
            SCHEMA,
            OLDEST_SCHEMA,
            me.name,
            me.incarnation,
            _record(me),
            self._secret_mark,
        )

    async def renew(self, me: Member, seen: int, view: RingView) -> Answer:
        """renewed (with the members if the view is not the current one) | gone | taken | behind."""
        return await self._call(
            "renew", self._ttl_ms, seen, view.epoch, view.members_hash, me.name, me.incarnation
        )

    async def restore(self, seen: int, view: RingView) -> Answer:
        """restored | ahead: gives a server that is behind the view what it has forgotten."""
        records = [part for member in view.members for part in (member.name, _record(member))]
        geometry = (SLOTS, ALGORITHM, SCHEMA, self._secret_mark)
        return await self._call("restore", self._ttl_ms, seen, view.epoch, *geometry, *records)

    async def state(self, me: Member, seen: int) -> Answer:
        """changed | gone | taken: sets the state that `me` has."""
        return await self._call("state", seen, me.name, me.incarnation, me.state)

    async def weight(self, name: str, weight: int) -> Answer:
        """changed | gone."""
        return await self._call("weight", name, weight)

    async def leave(self, me: Member, seen: int) -> Answer:
        """left | gone | taken."""
        return await self._call("leave", seen, me.name, me.incarnation)

    async def suspect(self, me: Member, whom: Member) -> Answer:
        """suspected (ms in which a renewal refutes it) | gone | stale (`me` is no live member)."""
        parties = (me.name, me.incarnation, whom.name, whom.incarnation)
        return await self._call("suspect", self._ttl_ms, GRACE_MS, *parties)

    async def evict(self, me: Member, whom: Member, seen: int) -> Answer:
        """evicted | gone | refuted | wait (ms left) | unproven (another has to suspect it too) | stale."""
        parties = (me.name, me.incarnation, whom.name, whom.incarnation)
        return await self._call("evict", self._ttl_ms, GRACE_MS, seen, *parties)

    async def table(self, view: RingView) -> Answer:
        """written | same | differs | stale: the view's table against that of the first node to compute it."""
        data = await trio.to_thread.run_sync(_pack_table, view.owners)
        return await self._call("table", view.epoch, view.table_hash, data)

    async def read(self, cluster: str) -> Reading:
        """The ring as it is stored, with the slot table that its nodes route by."""
        answer = await self._call("read")
        now, epoch, ttl_ms, records, leases, table_epoch, table = answer.details
        members = [_member(record) for record in records]
        ttl_s = int(ttl_ms or 0) / 1000
        owners = _unpack_table(table) if table_epoch == epoch else None
        view = await trio.to_thread.run_sync(RingView.build, cluster, int(epoch), members, owners)
        lapse_ms = zip(leases[::2], leases[1::2], strict=True)
        renewed = {name.decode(): ttl_s - (int(lapse) - int(now)) / 1000 for name, lapse in lapse_ms}
        return Reading(view, renewed, ttl_s)

    async def _call(self, name: str, *args: Any) -> Answer:
        now = "" if self.now_ms is None else self.now_ms
        reply = await self._scripts[name](keys=self._keys, args=[now, *args])
        status = reply[0].decode()
        if len(reply) == 4 and isinstance(reply[3], list):
            return Answer(status, int(reply[1]), int(reply[2]), tuple(map(_member, reply[3])))
        return Answer(status, details=tuple(reply[1:]))


async def read_ring(redis: Redis, keys: Keys) -> Reading:
    """A cluster's ring from Redis alone, with no node up; of epoch 0, without members, if there was none."""
    return await Scripts(redis, keys).read(keys.cluster)


async def set_weight(redis: Redis, keys: Keys, name: str, weight: int) -> int:
    """Changes a member's weight, until it is restarted, and returns the epoch from which it holds.

    Raises:
        BadRequest: the weight is not 1 to 1000, or the cluster has no such member.
    """
    if not 1 <= weight <= MAX_WEIGHT:
        raise BadRequest(f"weight: 1 to {MAX_WEIGHT}, not {weight}")
    answer = await Scripts(redis, keys).weight(name, weight)
    if answer.status == "gone":
        raise BadRequest(f"{name} is no member of cluster {keys.cluster}: see ring status")
    return answer.epoch


def _source(name: str) -> str:
    here = resources.files("ring.cluster")
    return "\n".join((here / f"{part}.lua").read_text("utf-8") for part in ("prelude", name))


def _record(member: Member) -> bytes:
    return msgspec.json.encode(member)


_member = msgspec.json.Decoder(Member).decode


def _pack_table(owners: list[str]) -> bytes:
    names = sorted(set(owners))
    index = {name: number for number, name in enumerate(names)}
    return zlib.compress(msgspec.msgpack.encode((names, [index[owner] for owner in owners])))


_decode_table = msgspec.msgpack.Decoder(tuple[list[str], list[int]]).decode


def _unpack_table(data: bytes) -> list[str]:
    names, numbers = _decode_table(zlib.decompress(data))
    return [names[number] for number in numbers]
