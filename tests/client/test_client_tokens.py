"""Tokens: where they travel, and what follows when a node refuses one."""

import pytest
import trio
from trio.testing import MockClock

import ring
from ring.protocol.codes import ErrorCode
from tests.client.fake_node import FakeNode, refuse

EAGER = ring.Backoff(first_s=0, cap_s=0, slow_s=0)
LATEST = ring.Backoff(draw=lambda: 1.0)


def _bearers(node: FakeNode) -> list[bytes | None]:
    return [dict(request.headers).get(b"authorization") for request, _ in node.requests]


async def test_token_travels_in_a_header(node: FakeNode, autojump_clock: MockClock) -> None:
    """Not in the URL, which others log; and the user may be left to it."""
    async with ring.connect(node.url, token="t1"):
        peer = await node.peer()

    assert _bearers(node) == [b"Bearer t1"]
    assert "user" not in peer.query


async def test_callable_is_asked_for_another_token(node: FakeNode, autojump_clock: MockClock) -> None:
    """When the node closes with 4001 the application gives a new one; in between the old one is kept."""
    tokens = ["t3", "t2", "t1"]
    async with ring.connect(node.url, token=tokens.pop, backoff=EAGER):
        peer = await node.peer()
        await peer.cut()
        peer = await node.peer()
        await peer.close(4001, "expired")
        await node.peer()

    assert _bearers(node) == [b"Bearer t1", b"Bearer t1", b"Bearer t2"]


async def test_refused_token_is_renewed_once(node: FakeNode, autojump_clock: MockClock) -> None:
    """The callable, which may be async, is asked again after a 401; a second 401 is final."""
    tokens = ["t3", "t2", "t1"]

    async def token() -> str:
        await trio.lowlevel.checkpoint()
        return tokens.pop()

    node.plans.append(refuse(401))
    async with ring.connect(node.url, token=token, backoff=EAGER) as client:
        assert _bearers(node) == [b"Bearer t1", b"Bearer t2"]
        node.plans.extend([refuse(401), refuse(401)])
        await (await node.peer()).cut()
        with pytest.raises(ring.ConnectionEnded) as caught:
            await anext(client)

    assert caught.value.status == 401
    assert _bearers(node)[2:] == [b"Bearer t2", b"Bearer t3"]


async def test_token_refused_twice_is_final(node: FakeNode, autojump_clock: MockClock) -> None:
    """A new token that is refused as well is no use."""
    node.plans.extend([refuse(401), refuse(401)])
    with pytest.raises(ring.ConnectionEnded) as caught:
        async with ring.connect(node.url, token=lambda: "t", backoff=EAGER):
            raise AssertionError("connected")

    assert caught.value.status == 401


async def test_fixed_token_that_is_refused_is_final(node: FakeNode, autojump_clock: MockClock) -> None:
    """There is nobody to ask for another."""
    async with ring.connect(node.url, token="t1") as client:
        await (await node.peer()).close(4001, "expired")
        with pytest.raises(ring.ConnectionEnded) as caught:
            await anext(client)

    assert caught.value.close_code == 4001
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize("token", ["two\nlines", "ümlaut"])
async def test_token_that_is_no_header_ends_the_client(
    node: FakeNode, autojump_clock: MockClock, token: str
) -> None:
    """It would break the request, so it is not sent."""
    with pytest.raises(ring.ConnectionEnded, match="token: ASCII") as caught:
        async with ring.connect(node.url, token=token):
            raise AssertionError("connected")

    assert isinstance(caught.value.__cause__, ring.BadRequest)
    assert node.requests == []


async def test_error_of_the_token_callable_ends_the_client(
    node: FakeNode, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The application's own exception is the cause of what it is told, and logged whole."""

    def token() -> str:
        raise LookupError("no token")

    with pytest.raises(ring.ConnectionEnded, match="the client failed: LookupError") as caught:
        async with ring.connect(node.url, token=token):
            raise AssertionError("connected")

    assert isinstance(caught.value.__cause__, LookupError)
    assert "Traceback" in caplog.text
