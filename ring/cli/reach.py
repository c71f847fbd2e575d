"""How commands find a cluster, and ask it: by a node's API, by Redis, or by the note of `ring dev`."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from msgspec import Struct

from ring.config import read_secret
from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.names import SLOTS

if TYPE_CHECKING:
    import httpx

    from ring.cluster.scripts import Reading
    from ring.store.client import Redis
    from ring.store.keys import Keys

T = TypeVar("T")

ANSWER_S = 3.0
"""How long a node, or Redis, may take to answer."""

ApiOption = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="RING_API",
        metavar="URL",
        help="The HTTP API of any node, as in http://127.0.0.1:7001.",
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file", envvar="RING_API_KEY_FILE", help="File with the key that the API asks for."
    ),
]
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis", envvar="RING_REDIS", metavar="URL", help="The cluster's Redis, with no node asked."
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        "--cluster", envvar="RING_CLUSTER", metavar="NAME", help="Name of the cluster in that Redis."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Unreachable(RingError):
    """Nobody answered."""

    code = ErrorCode.OWNER_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a cluster can be asked: its nodes' APIs first, then Redis."""

    api: tuple[str, ...] = ()
    redis: str | None = None
    cluster: str = "ring"
    key: str | None = None
    front: str | None = None
    """Where clients connect to a balancer, if it is known."""


def find(api: str | None, api_key_file: Path | None, redis: str | None, cluster: str) -> Reach:
    """What the options of a command say, or else the note of a running `ring dev`.

    Raises:
        RingError: nothing says where a cluster is.
        SettingsError: the file of the key holds none.
    """
    key = None if api_key_file is None else read_secret(api_key_file, "api_key_file").decode()
    if api:
        return Reach(api=(api_url(api),), key=key)
    if redis:
        return Reach(redis=redis, cluster=cluster)
    from ring.dev import context

    note = context.read()
    return Reach(tuple(note.api), note.redis, note.cluster, key, note.front)


def api_url(address: str) -> str:
    """The URL of an API that is given as such or as `host:port`."""
    return (address if "://" in address else f"http://{address}").rstrip("/")


def client(reach: Reach) -> "httpx.AsyncClient":
    """An HTTP client for the APIs of a cluster, to be closed by the caller."""
    import httpx

    headers = {} if reach.key is None else {"Authorization": f"Bearer {reach.key}"}
    return httpx.AsyncClient(timeout=ANSWER_S, headers=headers, trust_env=False)


async def get(http: "httpx.AsyncClient", url: str, path: str, kind: type[T], **query: str) -> T:
    """What a node answers to GET `path`: a `kind`.

    Raises:
        Unreachable: nothing answers there, or something else than a node.
        RingError: it refuses.
    """
    return await _ask(http, "GET", url, path, kind, params=query)


async def _ask(
    http: "httpx.AsyncClient",
    method: str,
    url: str,
    path: str,
    kind: type[T],
    *,
    params: dict[str, str] | None = None,
    json: dict[str, Any] | None = None,
) -> T:
    import httpx
    import msgspec

    try:
        response = await http.request(method, url + path, params=params, json=json)
        if response.is_success:
            return msgspec.json.decode(response.content, type=kind)
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unreachable(f"no answer from {url} ({type(error).__name__}): is a node's API there?") from None
    if response.status_code == 401:
        raise RingError(
            f"{url} asks for a key, or for another: give --api-key-file", code=ErrorCode.UNAUTHENTICATED
        )
    details = answer.get("error", {}) if isinstance(answer, dict) else {}
    code = next((code for code in ErrorCode if code == details.get("code")), ErrorCode.INTERNAL)
    raise RingError(f"{url}: {details.get('message', f'HTTP {response.status_code}')}", code=code)


async def get_any(http: "httpx.AsyncClient", reach: Reach, path: str, kind: type[T], **query: str) -> T:
    """What the first node that answers, answers to GET `path`: a `kind`.

    Raises:
        Unreachable: none does.
        RingError: the node refuses.
    """
    return await _ask_any(http, "GET", reach, path, kind, params=query)


async def post_any(
    http: "httpx.AsyncClient", reach: Reach, path: str, kind: type[T], body: dict[str, Any]
) -> T:
    """As `get_any`, for a POST of JSON that may be repeated."""
    return await _ask_any(http, "POST", reach, path, kind, json=body)


async def _ask_any(
    http: "httpx.AsyncClient", method: str, reach: Reach, path: str, kind: type[T], **sent: Any
) -> T:
    for url in reach.api:
        try:
            return await _ask(http, method, url, path, kind, **sent)
        except Unreachable:
            continue
    raise Unreachable(f"no node answers at {', '.join(reach.api)}: is the cluster up?")


async def get_from_any(http: "httpx.AsyncClient", reach: Reach, path: str, **query: str) -> dict[str, Any]:
    """As `get_any`, for an answer that is taken as it is."""
    return await get_any(http, reach, path, dict[str, Any], **query)


class OwnedRange(Struct):
    """Neighbouring slots of one owner, as GET /v1/ring?table=1 tells them."""

    first: int
    last: int
    owner: str


def slot_table(ranges: Iterable[OwnedRange]) -> list[str]:
    """The owner of each slot.

    Raises:
        Unreachable: they are not all slots.
    """
    owners = [part.owner for part in ranges for _ in range(part.first, part.last + 1)]
    if len(owners) != SLOTS:
        raise Unreachable(f"the nodes tell of {len(owners)} slots, not of {SLOTS}: is `ring` as new as they?")
    return owners


async def ask_redis(reach: Reach, question: Callable[["Redis", "Keys"], Awaitable[T]]) -> T:
    """What the cluster's Redis answers.

    Raises:
        Unreachable: it does not.
        RingError: as the question does.
    """
    import trio

    from ring.logs import logging
    from ring.store.client import Redis
    from ring.store.keys import Keys

    assert reach.redis is not None  # the caller looked
    redis = Redis.from_url(reach.redis, client_name="ring command")
    outcome: T | RingError
    try:
        with logging("error", "console", "ring"), trio.fail_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(redis.run)
                try:
                    outcome = await question(redis, Keys(reach.cluster))
                except RingError as error:
                    outcome = error  # raised below: out of a nursery it would come in a group
                nursery.cancel_scope.cancel()
    except trio.TooSlowError:
        raise Unreachable(
            f"no answer from Redis at {redis.address} ({redis.trouble or 'it is silent'})"
        ) from None
    if isinstance(outcome, RingError):
        raise outcome
    return outcome


async def read_redis(reach: Reach) -> "Reading":
    """The ring as Redis has it.

    Raises:
        Unreachable: Redis does not answer, or knows no such cluster.
    """
    from ring.cluster.scripts import read_ring

    async def read(redis: "Redis", keys: "Keys") -> "Reading":
        reading = await read_ring(redis, keys)
        if not reading.view.members:
            raise Unreachable(
                f"Redis at {redis.address} knows no node of cluster {reach.cluster}: is --cluster right?"
            )
        return reading

    return await ask_redis(reach, read)
