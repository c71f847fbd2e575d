"""Where the agent learns the ring: from any node's API, or from Redis. Both are asked again and again."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import httpx
import msgspec
import trio
from msgspec import Struct

from ring.cluster.scripts import read_ring
from ring.cluster.view import Member, RingView
from ring.protocol.codes import ErrorCode, RingError
from ring.store.client import Redis
from ring.store.keys import Keys

ANSWER_S = 2.0
"""How long a node, or Redis, may take to answer."""


class NoRing(RingError):
    """Nobody can say what the ring is."""

    code = ErrorCode.OWNER_UNAVAILABLE


class Source(ABC):
    """Where the ring can be read."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps what it needs until it is cancelled."""
        task_status.started()
        await trio.sleep_forever()

    @abstractmethod
    async def read(self) -> RingView:
        """The ring as it is now.

        Raises:
            RingError: nobody can say.
        """


class _Node(Struct):
    name: str
    incarnation: str
    state: str
    edge: str
    peer: str
    api: str
    weight: int
    version: str
    own: "_Own | None" = msgspec.field(default=None, name="self")


class _Own(Struct):
    state: str
    epoch: int


class _Nodes(Struct):
    nodes: list[_Node]


_decode = msgspec.json.Decoder(_Nodes).decode


class Nodes(Source):
    """The nodes' HTTP API: the first that answers is asked, and the others that it names if it does not.

    Args:
        urls: of some nodes.
        key: that the API asks for.
    """

    def __init__(self, urls: Sequence[str], key: str | None = None) -> None:
        self._given = list(urls)
        self._known: list[str] = []
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(timeout=ANSWER_S, headers=headers, trust_env=False)
        self._last: RingView | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until it is cancelled, which closes its connections."""
        async with self._http:
            await super().run(task_status=task_status)

    async def read(self) -> RingView:
        """As `Source.read`; a node that is cut off, or has not joined, is passed over."""
        troubles = []
        for url in dict.fromkeys([*self._known, *self._given]):
            try:
                members, epoch = await self._ask(url)
            except RingError as trouble:
                troubles.append(str(trouble))
                continue
            self._known = [url, *(f"http://{member.api}" for member in members if member.api)]
            return await self._view(members, epoch)
        raise NoRing("; ".join(troubles))

    async def _ask(self, url: str) -> tuple[list[Member], int]:
        try:
            response = await self._http.get(f"{url}/v1/nodes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoRing(f"no answer from {url} ({type(error).__name__})") from None
        if response.status_code == 401:
            raise NoRing(f"{url} asks for a key, or for another: give --api-key-file")
        try:
            nodes = _decode(response.content).nodes
        except msgspec.DecodeError:
            raise NoRing(f"{url} answers HTTP {response.status_code}, and no ring") from None
        own = next((node.own for node in nodes if node.own is not None), None)
        if own is None or own.state not in ("up", "draining"):
            raise NoRing(f"{url} is {own.state if own else 'no member'}")
        members = [
            Member(
                node.name,
                node.incarnation,
                node.edge,
                node.peer,
                node.api,
                node.weight,
                "up" if node.state == "up" else "draining",
                node.version,
            )
            for node in nodes
        ]
        return members, own.epoch

    async def _view(self, members: list[Member], epoch: int) -> RingView:
        last = self._last
        if last is None or (last.epoch, last.members) != (
            epoch,
            tuple(sorted(members, key=lambda m: m.name)),
        ):
            last = self._last = await trio.to_thread.run_sync(RingView.build, "", epoch, members)
        return last


class Store(Source):
    """The cluster's Redis, with no node asked.

    Args:
        url: of the Redis.
        cluster: the cluster's name.
    """

    def __init__(self, url: str, cluster: str) -> None:
        self._redis = Redis.from_url(url, client_name="ring haproxy")
        self._keys = Keys(cluster)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the connection until it is cancelled."""
        task_status.started()
        await self._redis.run()

    async def read(self) -> RingView:
        """As `Source.read`."""
        try:
            with trio.fail_after(ANSWER_S):
                return (await read_ring(self._redis, self._keys)).view
        except trio.TooSlowError:
            trouble = self._redis.trouble or "it is silent"
            raise NoRing(f"no answer from Redis at {self._redis.address} ({trouble})") from None
