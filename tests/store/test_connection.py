import socket
from functools import partial

import pytest
import trio
import trio.testing

from ring.store import connection as connection_module
from ring.store.connection import (
    Connection,
    NotSent,
    ScriptMissing,
    StoreError,
    StoreUnavailable,
    pack,
)
from tests.store.wires import PONG, Call, Peer

GET = pack(("GET", "k"))


async def test_replies_go_to_their_callers(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """Each caller gets the reply to its own command, whatever number of commands is under way."""
    calls = []
    for name in ("a", "b"):
        calls.append(Call(nursery, partial(connection.execute, pack(("ECHO", name)))))
        await trio.testing.wait_all_tasks_blocked()
    assert [await peer.command(), await peer.command()] == [[b"ECHO", b"a"], [b"ECHO", b"b"]]
    await peer.answer(b"$1\r\na\r\n$1\r\n")
    await calls[0].done.wait()
    assert calls[0].result == b"a"
    assert not calls[1].done.is_set()
    await peer.answer(b"b\r\n")
    await calls[1].done.wait()
    assert calls[1].result == b"b"


async def test_commands_of_one_tick_go_in_one_piece(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """Commands that tasks issue in the same tick are written together: that is the pipelining."""
    calls = [Call(nursery, partial(connection.execute, GET)) for _ in range(3)]
    for _ in calls:
        await peer.command()
    assert peer.sends == 1
    await peer.answer(b":1\r\n:2\r\n:3\r\n")
    for call in calls:
        await call.done.wait()
    assert sorted(call.result for call in calls) == [1, 2, 3]


async def test_error_replies_are_raised(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """An error reply is a StoreError with the server's text; if the server cannot now, StoreUnavailable."""
    for reply, kind in [
        ("WRONGTYPE no", StoreError),
        ("NOSCRIPT no", ScriptMissing),
        ("LOADING no", StoreUnavailable),
        ("BUSY no", StoreUnavailable),
        ("READONLY no", StoreUnavailable),
        ("ERR max number of clients reached", StoreUnavailable),
    ]:
        call = Call(nursery, partial(connection.execute, GET))
        await peer.command()
        await peer.answer(b"-" + reply.encode() + b"\r\n")
        await call.done.wait()
        assert type(call.error) is kind
        assert str(call.error) == reply
    assert StoreError("WRONGTYPE no").word == "WRONGTYPE"
    assert not connection.broken


async def test_many_keep_errors_in_their_list(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """A caller of several gets all replies at once, error replies among them, in any split of the bytes."""
    call = Call(nursery, partial(connection.execute_many, GET * 3, 3))
    for byte in b":1\r\n-ERR no\r\n*1\r\n-ERR inside\r\n":
        assert not call.done.is_set()
        await peer.answer(bytes((byte,)))
        await trio.testing.wait_all_tasks_blocked()
    one, error, array = call.result
    assert (one, str(error), str(array[0])) == (1, "ERR no", "ERR inside")


async def test_a_cancelled_callers_reply_is_dropped(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """The reply to a cancelled caller is given to nobody, least of all to the next in line."""
    lost, kept = Call(nursery, partial(connection.execute, GET)), None
    await trio.testing.wait_all_tasks_blocked()
    kept = Call(nursery, partial(connection.execute, GET))
    await trio.testing.wait_all_tasks_blocked()
    lost.scope.cancel()
    await lost.done.wait()
    await peer.answer(b"+lost\r\n+kept\r\n")
    await kept.done.wait()
    assert (lost.result, kept.result) == (None, b"kept")


async def test_a_cancelled_caller_of_many_is_dropped_too(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """That holds for several replies at once, cancelled while half of them are there."""
    lost = Call(nursery, partial(connection.execute_many, GET * 2, 2))
    await trio.testing.wait_all_tasks_blocked()
    await peer.answer(b"+one\r\n")
    await trio.testing.wait_all_tasks_blocked()
    lost.scope.cancel()
    kept = Call(nursery, partial(connection.execute, GET))
    await trio.testing.wait_all_tasks_blocked()
    await peer.answer(b"+two\r\n+kept\r\n")
    await kept.done.wait()
    assert (lost.result, kept.result) == (None, b"kept")


async def test_a_call_under_cancellation_sends_nothing(connection: Connection, peer: Peer) -> None:
    """Whoever is cancelled already leaves no command behind."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.execute(GET)
    await trio.testing.wait_all_tasks_blocked()
    assert peer.sends == 0
    assert scope.cancelled_caught


async def test_the_outcome_is_unknown_once_it_was_sent(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """If the connection breaks after a command went out, its caller is told that nobody knows."""
    call, gone = (Call(nursery, partial(connection.execute, GET)) for _ in range(2))
    await trio.testing.wait_all_tasks_blocked()
    gone.scope.cancel()
    await peer.cut()
    await call.done.wait()
    assert type(call.error) is StoreUnavailable
    assert "unknown" in str(call.error)
    assert isinstance(call.error.__cause__, trio.BrokenResourceError)
    assert connection.broken
    assert gone.error is None


async def test_what_was_not_sent_says_so(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """A command that still waited behind a blocked send was surely not executed, and its error says that."""
    sending = trio.Event()

    async def never_done() -> None:
        sending.set()
        await trio.sleep_forever()

    peer.client_end.send_stream.send_all_hook = never_done
    sent = Call(nursery, partial(connection.execute, GET))
    await sending.wait()
    waiting = Call(nursery, partial(connection.execute, GET))
    await trio.testing.wait_all_tasks_blocked()
    await peer.cut()
    await sent.done.wait()
    await waiting.done.wait()
    assert type(sent.error) is StoreUnavailable
    assert type(waiting.error) is NotSent


async def test_a_broken_connection_takes_nothing(connection: Connection, peer: Peer) -> None:
    """After the break every call fails at once, with the reason as its cause."""
    await peer.cut()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(NotSent) as caught:
        await connection.execute(GET)
    assert caught.value.__cause__ is connection.cause is not None


async def test_cancelling_run_ends_the_connection(peer: Peer, nursery: trio.Nursery) -> None:
    """Cancelling `run` is closing: the stream is closed, and callers hear that the outcome is unknown."""
    connection = Connection(peer.client_end)
    running = Call(nursery, connection.run)
    call = Call(nursery, partial(connection.execute, GET))
    await trio.testing.wait_all_tasks_blocked()
    running.scope.cancel()
    await call.done.wait()
    assert type(call.error) is StoreUnavailable
    assert isinstance(connection.cause, trio.ClosedResourceError)
    await peer.ends()


async def test_commands_in_flight_are_bounded(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """Beyond the bound callers wait, in order, and may be cancelled meanwhile; each reply admits one."""
    calls = []
    for _ in range(6):
        calls.append(Call(nursery, partial(connection.execute, GET)))
        await trio.testing.wait_all_tasks_blocked()
    for _ in range(3):
        await peer.command()
    calls[3].scope.cancel()
    await calls[3].done.wait()
    assert connection._in_flight == 3
    await peer.answer(b":0\r\n")
    await trio.testing.wait_all_tasks_blocked()
    await peer.command()
    assert connection._in_flight == 3
    await peer.answer(b":1\r\n:2\r\n:4\r\n")
    await peer.command()
    await peer.answer(b":5\r\n")
    await calls[5].done.wait()
    assert [call.result for call in calls] == [0, 1, 2, None, 4, 5]


async def test_several_replies_take_as_much_room(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """A piece of three commands fills a connection with room for three until all are answered."""
    three = Call(nursery, partial(connection.execute_many, GET * 3, 3))
    await trio.testing.wait_all_tasks_blocked()
    others = [Call(nursery, partial(connection.execute, GET)) for _ in range(3)]
    await peer.answer(b":0\r\n:1\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert connection._in_flight == 3
    await peer.answer(b":2\r\n")
    await three.done.wait()
    for _ in range(6):
        await peer.command()
    await peer.answer(b":3\r\n:4\r\n:5\r\n")
    for call in others:
        await call.done.wait()
    assert connection._in_flight == 0


async def test_queued_bytes_are_bounded(
    connection: Connection, peer: Peer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the kernel takes nothing, callers wait once so many bytes are queued; they go on when it does."""
    monkeypatch.setattr(connection_module, "MAX_QUEUED_BYTES", 1)
    gate, pump = trio.Event(), peer.client_end.send_stream.send_all_hook
    assert pump is not None

    async def gated() -> None:
        await gate.wait()
        await pump()

    peer.client_end.send_stream.send_all_hook = gated
    calls = []
    for _ in range(3):
        calls.append(Call(nursery, partial(connection.execute, GET)))
        await trio.testing.wait_all_tasks_blocked()
    assert connection._in_flight == 2
    gate.set()
    for _ in calls:
        await peer.command()
    await peer.answer(b":0\r\n:1\r\n:2\r\n")
    await calls[2].done.wait()
    assert [call.result for call in calls] == [0, 1, 2]


async def test_callers_that_wait_for_room_learn_of_the_break(
    connection: Connection, peer: Peer, nursery: trio.Nursery
) -> None:
    """Who was not admitted before the break was not sent."""
    calls = [Call(nursery, partial(connection.execute, GET)) for _ in range(4)]
    await trio.testing.wait_all_tasks_blocked()
    await peer.cut()
    for call in calls:
        await call.done.wait()
    assert sorted(type(call.error).__name__ for call in calls) == ["NotSent"] + ["StoreUnavailable"] * 3


async def test_pushes_are_nobodys_reply(connection: Connection, peer: Peer, nursery: trio.Nursery) -> None:
    """What the server says of its own accord does not shift the replies."""
    call = Call(nursery, partial(connection.execute, GET))
    await peer.command()
    await peer.answer(b">2\r\n+invalidate\r\n*1\r\n+k\r\n+mine\r\n")
    await call.done.wait()
    assert call.result == b"mine"


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"+unasked\r\n"])
async def test_nonsense_breaks_the_connection(connection: Connection, peer: Peer, data: bytes) -> None:
    """Bytes that are not RESP, or replies that nobody asked for: nothing after them can be trusted."""
    await peer.answer(data)
    await peer.ends()
    assert connection.broken


async def test_a_silent_server_is_found(
    connection: Connection, peer: Peer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A peer that vanished: after 5 s of silence a PING, after 5 more the connection is broken."""
    start = trio.current_time()
    call = Call(nursery, partial(connection.execute, GET))
    await peer.command()
    assert await peer.command() == [b"PING"]
    assert trio.current_time() == start + 5
    await call.done.wait()
    assert trio.current_time() == start + 10
    assert "not answered for 10 s" in str(connection.cause)


@pytest.mark.parametrize("answer", [PONG, b"-BUSY a script runs\r\n"])
async def test_an_idle_connection_that_answers_lives_on(
    connection: Connection, peer: Peer, answer: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """Any answer to the PING will do; the next one comes 5 s later."""
    for second in (5, 10, 15):
        assert await peer.command() == [b"PING"]
        assert trio.current_time() == second
        await peer.answer(answer)
    assert not connection.broken


async def test_traffic_needs_no_ping(
    connection: Connection, peer: Peer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """While replies come, nobody asks whether the server lives."""
    for _ in range(4):
        call = Call(nursery, partial(connection.execute, GET))
        assert await peer.command() == [b"GET", b"k"]
        await peer.answer(b"_\r\n")
        await call.done.wait()
        await trio.sleep(4)
    assert not connection.broken


async def test_standing_still_ourselves_is_not_the_servers_silence(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """After a stop (SIGSTOP, suspend) answer and deadline come in one tick: the answer counts."""
    ours, theirs = socket.socketpair()
    with theirs:
        wrapped = trio.socket.from_stdlib_socket(ours)
        connection = Connection(trio.SocketStream(wrapped))
        await nursery.start(connection.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(connection_module.PING_EVERY_S)
        await trio.testing.wait_all_tasks_blocked()
        assert theirs.recv(100) == pack(("PING",))
        theirs.sendall(PONG)
        mock_clock.jump(connection_module.PING_ANSWER_S)
        await trio.testing.wait_all_tasks_blocked()
        assert not connection.broken
        mock_clock.jump(connection_module.PING_EVERY_S)
        await trio.testing.wait_all_tasks_blocked()
        assert theirs.recv(100) == pack(("PING",))
