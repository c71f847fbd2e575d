"""Whether the process of a member is gone: probes, which make no link."""

import errno
import socket

import msgspec
import pytest
import structlog
import trio

from ring.cluster.view import Member
from ring.peers.dial import Greeting
from ring.peers.link import PeerLink
from ring.peers.proof import Handshake, hello
from ring.protocol.codes import CloseCode
from ring.protocol.peer import SUBPROTOCOL
from tests.peers.fakes import SECRET, FakeSocket
from tests.peers.nodes import DEADLINE_S, Node, link_all, start, view


def other(member: Member, **changes: str) -> Member:
    """The same, as somebody remembers it."""
    return msgspec.structs.replace(member, **changes)


async def test_nobody_listens(nursery: trio.Nursery) -> None:
    """Its process is gone; where the mesh dials it, too, that is known at once."""
    one = Node("n1")
    await nursery.start(one.run)
    ghost = other(one.member, name="n2", peer="127.0.0.1:1")
    assert await one.mesh.probe(ghost)
    assert one.mesh.dial_outcome("n2") is None
    one.mesh.update(view(5, one, ghost))
    assert await one.mesh.probe(ghost)
    assert one.mesh.dial_outcome("n2") == "refused"


async def test_who_lives_is_not_gone(pair: tuple[Node, Node]) -> None:
    """Whichever side normally dials, linked or not; no link comes of it, and nobody complains."""
    one, two = pair
    with structlog.testing.capture_logs() as logs:
        for asking, asked in ((one, two), (two, one)):
            assert not await asking.mesh.probe(asked.member)
        assert not one.mesh.links
        assert not two.mesh.links
        await link_all(5, one, two)
        link = one.link("n2")
        for asking, asked in ((one, two), (two, one)):
            assert not await asking.mesh.probe(asked.member)
        assert one.link("n2") is link
    assert [entry for entry in logs if entry["log_level"] != "info"] == []


async def test_another_life_of_the_name_shows_that_this_one_is_gone(pair: tuple[Node, Node]) -> None:
    """Started again at once at the same address: nothing is refused there."""
    one, two = pair
    assert await one.mesh.probe(other(two.member, incarnation="i0"))


async def test_another_name_or_cluster_shows_nothing(nursery: trio.Nursery) -> None:
    """Somebody took the address meanwhile; so may somebody else's proxy."""
    one = Node("n1")
    two, stranger = await start(nursery, Node("n2"), Node("n3", "i9", cluster="other"))
    await nursery.start(one.run)
    assert not await one.mesh.probe(other(two.member, name="n4", incarnation="i0"))
    assert not await one.mesh.probe(other(stranger.member, incarnation="i0"))
    assert not await one.mesh.probe(other(two.member, peer="nonsense"))


async def test_what_is_silent_shows_nothing(nursery: trio.Nursery) -> None:
    """As a frozen process, whose kernel answers for it; whoever asks gives up, and the socket is closed."""
    one = Node("n1")
    await nursery.start(one.run)
    with socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen(1)
        address = f"127.0.0.1:{frozen.getsockname()[1]}"
        with trio.move_on_after(0.05) as scope:
            await one.mesh.probe(other(one.member, name="n2", peer=address))
        assert scope.cancelled_caught
        near = trio.socket.from_stdlib_socket(frozen.accept()[0])
        with near, trio.fail_after(DEADLINE_S):
            assert await near.recv(4096)
            with pytest.raises(ConnectionResetError):
                await near.recv(4096)


def greeting() -> Greeting:
    """What n1 says to n2."""
    mine = hello("demo", "n1", "i1", 5)
    return Greeting(Handshake(mine, SECRET, dials="n2", admit=lambda _: "a probe"))


def test_a_greeting_is_a_hello_and_a_goodbye() -> None:
    """Who is asked need not prove anything, and is given nothing to try secrets against."""
    asking, socket = greeting(), FakeSocket()
    asking.on_open(socket.real)
    answering = Handshake(hello("demo", "n2", "i2", 5), SECRET, dials=None, admit=lambda _: None)
    asking.on_binary(answering.receive(socket.take()[0]))
    asking.on_pong(b"")
    asking.on_drained()
    assert socket.closed == (CloseCode.GOING_AWAY, "that was all")
    assert socket.frames == []
    assert not answering.proven


@pytest.mark.parametrize("says", ["nothing that a peer says", "text", "no sub-protocol"])
def test_who_is_no_peer_is_told_so(says: str) -> None:
    """And nothing is learned."""
    asking, socket = greeting(), FakeSocket("ring.v1" if says == "no sub-protocol" else SUBPROTOCOL)
    asking.on_open(socket.real)
    if says == "text":
        asking.on_text(b"hello")
    elif says != "no sub-protocol":
        asking.on_binary(b"hello")
    expected = CloseCode.UNSUPPORTED_DATA if says == "text" else CloseCode.PROTOCOL_ERROR
    assert socket.closed is not None
    assert socket.closed[0] == expected


async def test_a_connection_that_breaks_at_once_shows_nothing(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something took it."""
    one, two = pair

    def adopt(sock: socket.socket, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(one.pump, "adopt", adopt)
    assert not await one.mesh.probe(other(two.member, incarnation="i0"))


async def test_who_says_no_more_after_the_upgrade_is_given_up(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that was frozen in the middle of it."""
    one, two = await start(nursery, Node("n1"), Node("n2"))
    heard = trio.Event()
    with monkeypatch.context() as patch:
        patch.setattr(PeerLink, "on_binary", lambda link, payload: heard.set())
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as asking:
                asking.start_soon(one.mesh.probe, two.member)
                await heard.wait()
                scope.cancel()
    while one.pump.connections or two.pump.connections:
        await trio.lowlevel.checkpoint()
