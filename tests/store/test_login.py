"""Dialling and logging in: what is said to the server, and what its refusals become."""

import ssl
from functools import partial

import pytest
import trio

from ring.store.address import Address
from ring.store.connection import Connection, StoreRefused, StoreUnavailable, log_in, open_stream
from tests.store.wires import HELLO, PONG, Call, Peer


async def test_dialling_what_speaks_no_tls(nursery: trio.Nursery) -> None:
    """A server that answers TLS with something else is an error of the network, not a refusal."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"-ERR Protocol error\r\n")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, listeners)
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as caught:
        await open_stream(Address("127.0.0.1", port, tls=ssl.create_default_context()))
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    nursery.cancel_scope.cancel()


async def test_log_in_says_who_we_are(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """HELLO 3 with login and name (cleaned of what Redis refuses), SELECT, and PING, in one piece."""
    address = Address(username="alice", password="secret", db=2)
    call = Call(nursery, partial(log_in, connection, address, client_name="ring nöde"))
    assert await peer.command() == [b"HELLO", b"3", b"AUTH", b"alice", b"secret", b"SETNAME", b"ring_n_de"]
    assert [await peer.command(), await peer.command()] == [[b"SELECT", b"2"], [b"PING"]]
    assert peer.sends == 1
    await peer.answer(HELLO + b"+OK\r\n" + PONG)
    await call.done.wait()
    assert call.error is None


async def test_log_in_without_a_login(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """No password, no AUTH; database 0 needs no SELECT, nor the right to it."""
    call = Call(nursery, partial(log_in, connection, Address(), client_name="n1"))
    await peer.greet()
    await call.done.wait()
    assert call.error is None


REFUSALS = [
    ("NOAUTH HELLO must be called with the client already authenticated", 0, "wants a login"),
    ("WRONGPASS invalid username-password pair or user is disabled.", 0, "password for user 'alice'"),
    ("DENIED Redis is running in protected mode", 0, "protected mode"),
    ("NOPROTO unsupported protocol version", 0, "Redis 6 or later"),
    ("ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'alice' 's3cret'", 0, "Redis 6 or"),
    ("ERR DB index is out of range", 1, "no database 2"),
    ("NOPERM User alice has no permissions to run the 'select' command", 1, "'alice' SELECT: grant"),
    ("NOPERM User alice has no permissions to run the 'ping' command", 2, "'alice' PING: grant"),
    ("ERR something else", 2, "refuses us"),
]


@pytest.mark.parametrize(("text", "place", "hint"), REFUSALS)
async def test_refusals_say_what_to_do(
    connection: Connection, peer: Peer, nursery: trio.Nursery, text: str, place: int, hint: str
) -> None:
    """A server that will not have us is a StoreRefused of one line, with the place, without the password."""
    address = Address("example.org", 7000, username="alice", password="s3cret", db=2)
    call = Call(nursery, partial(log_in, connection, address, client_name="n1"))
    replies = [HELLO, b"+OK\r\n", PONG]
    replies[place] = b"-" + text.encode() + b"\r\n"
    await peer.answer(b"".join(replies))
    await call.done.wait()
    assert isinstance(call.error, StoreRefused)
    assert hint in str(call.error)
    assert "example.org:7000" in str(call.error)
    assert "s3cret" not in str(call.error)
    assert "\n" not in str(call.error)


async def test_a_refusal_at_the_door(connection: Connection, peer: Peer) -> None:
    """A server that says no and hangs up before we said anything is heard all the same."""
    await peer.answer(b"-DENIED protected mode\r\n")
    await peer.ends()
    with pytest.raises(StoreRefused, match="protected mode"):
        await log_in(connection, Address(), client_name="n1")


@pytest.mark.parametrize("place", [0, 1])
async def test_a_server_that_is_not_ready_is_no_refusal(
    connection: Connection, peer: Peer, nursery: trio.Nursery, place: int
) -> None:
    """LOADING, BUSY and the like will pass."""
    call = Call(nursery, partial(log_in, connection, Address(), client_name="n1"))
    replies = [HELLO, PONG]
    replies[place] = b"-LOADING the dataset\r\n"
    await peer.answer(b"".join(replies))
    await call.done.wait()
    assert type(call.error) is StoreUnavailable


async def test_a_break_during_log_in(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """Nor is a connection that breaks before the answer."""
    call = Call(nursery, partial(log_in, connection, Address(), client_name="n1"))
    await peer.command()
    await peer.cut()
    await call.done.wait()
    assert type(call.error) is StoreUnavailable
