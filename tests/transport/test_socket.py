"""One WebSocket on the pump: messages both ways, and every way that it can end."""

import gc
import socket
import weakref
from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from ring.protocol.websocket import BINARY, CLOSE, PING, PONG, TEXT, encode_frame
from ring.transport.agenda import MESSAGES_PER_SOCKET
from ring.transport.listener import Listener
from ring.transport.pump import Pump
from ring.transport.socket import Socket
from tests.transport.wire import DEADLINE_S, Recorder, Wire, connections_of, door_to, echo, masked, until

KIB = 1024


async def opened(
    pump: Pump, endpoint: Recorder, *, max_message: int = 1 << 20, max_queued: int | None = 1 << 20
) -> tuple[Wire, Listener]:
    """A connection to `endpoint`, and the listener that it came by."""
    listener = pump.listen("127.0.0.1:0", door_to(endpoint, max_message=max_message, max_queued=max_queued))
    wire = await Wire.upgraded(listener.address)
    await endpoint.hears("open")
    return wire, listener


def narrow(endpoint: Recorder) -> None:
    """Has the kernel take as little output as it may, so that it is soon backed up."""
    endpoint.ws._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


async def backed_up(endpoint: Recorder) -> int:
    """Sends binary messages, far more than the kernel holds for who does not read; returns how many."""
    narrow(endpoint)
    count = 0
    while endpoint.ws.queued < 600 * KIB:
        endpoint.ws.send_binary(bytes(16 * KIB))
        count += 1
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    return count


class TestMessages:
    """What goes through while it is open."""

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 4096, 4097, 65535, 65536, 1 << 20])
    async def test_messages_of_every_size(self, pump: Pump, nursery: trio.Nursery, size: int) -> None:
        """Text stays text and binary binary, through however small a send buffer."""
        endpoint = echo()
        wire, _ = await opened(pump, endpoint, max_queued=4 << 20)
        narrow(endpoint)
        payload = b"x" * size
        for opcode in (TEXT, BINARY):
            nursery.start_soon(wire.send, masked(opcode, payload))
            assert await wire.message() == (opcode, payload)

    async def test_a_prepared_frame_goes_out_as_it_is(self, pump: Pump) -> None:
        """The same bytes for many."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        endpoint.ws.send_frame(encode_frame(TEXT, b"to all"))
        assert await wire.message() == (TEXT, b"to all")

    async def test_output_of_another_task_is_flushed(self, pump: Pump) -> None:
        """In order, and in one system call for what is queued together."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        await wait_all_tasks_blocked()
        ticks = pump.ticks
        endpoint.ws.send_text(b"one")
        endpoint.ws.send_text(b"two")
        assert endpoint.ws.queued == 10
        assert await wire.some() == encode_frame(TEXT, b"one") + encode_frame(TEXT, b"two")
        assert endpoint.ws.queued == 0
        assert pump.ticks == ticks

    async def test_pings_are_answered(self, pump: Pump) -> None:
        """With the same payload, between the fragments of a message too; the endpoint does not hear of it."""
        endpoint = echo()
        wire, _ = await opened(pump, endpoint)
        first, last = bytearray(masked(TEXT, b"ab")), bytearray(masked(0, b"cd"))
        first[0] &= 0x7F
        await wire.send(bytes(first) + masked(PING, b"are you there") + bytes(last))
        assert await wire.message() == (PONG, b"are you there")
        assert await wire.message() == (TEXT, b"abcd")
        assert await endpoint.hears("text") == b"abcd"

    async def test_a_ping_of_ours_is_answered(self, pump: Pump) -> None:
        """And the endpoint hears of it."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        endpoint.ws.ping(b"7-1")
        assert await wire.message() == (PING, b"7-1")
        await wire.send(masked(PONG, b"7-1"))
        assert await endpoint.hears("pong") == b"7-1"

    async def test_of_pings_that_back_up_the_latest_is_answered(self, pump: Pump) -> None:
        """A client that pings and does not read does not make us hoard pongs."""
        endpoint = echo()
        wire, _ = await opened(pump, endpoint)
        sent = await backed_up(endpoint)
        queued = endpoint.ws.queued
        for index in range(500):
            await wire.send(masked(PING, b"%d" % index))
        await wire.text(b"after the pings")
        await endpoint.hears("text")
        assert endpoint.ws.queued <= queued + 200
        messages = [await wire.message() for _ in range(sent + 2)]
        assert [payload for opcode, payload in messages if opcode == PONG] == [b"499"]

    async def test_many_messages_of_one_read_keep_their_order(self, pump: Pump) -> None:
        """Though a tick handles only some of them, and more is sent meanwhile."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        count = 5 * MESSAGES_PER_SOCKET + 1
        await wire.send(b"".join(masked(TEXT, b"%d" % index) for index in range(count)))
        await wire.send(masked(TEXT, b"last"))
        for index in range(count):
            assert await endpoint.hears("text") == b"%d" % index
        assert await endpoint.hears("text") == b"last"

    async def test_queued_output_is_told_when_it_is_drained(self, pump: Pump) -> None:
        """Once for each time that it was above the mark: who has much to send goes on then."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        sent = await backed_up(endpoint)
        endpoint.ws.low_water = 300 * KIB
        assert endpoint.ws.queued > endpoint.ws.low_water
        while sent:
            await wire.message()
            sent -= 1
        await endpoint.hears("drained")
        assert endpoint.ws.queued <= endpoint.ws.low_water
        endpoint.ws.send_text(b"little")
        await wire.message()
        await wait_all_tasks_blocked()
        assert endpoint.heard_nothing()

    async def test_what_was_queued_behind_what_is_backed_up_counts(self, pump: Pump) -> None:
        """Also where neither it nor what was backed up before was above the mark alone."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        narrow(endpoint)
        ws = endpoint.ws
        ws.low_water = 200 * KIB
        ws.send_binary(bytes(190 * KIB))
        await wait_all_tasks_blocked()
        assert 0 < ws.queued <= ws.low_water, "the kernel has refused some"
        ws.send_binary(bytes(190 * KIB))
        assert ws.queued > ws.low_water
        for _ in range(2):
            await wire.message()
        await endpoint.hears("drained")


class TestSlowConsumer:
    """The bound of the output."""

    async def test_who_does_not_read_is_closed(self, pump: Pump) -> None:
        """With 4008, behind whole frames; another connection of the same pump goes on."""
        slow, other = echo(), echo()
        listener = pump.listen("127.0.0.1:0", door_to(slow, other, max_queued=100 * KIB))
        slow_wire, other_wire = await Wire.upgraded(listener.address), await Wire.upgraded(listener.address)
        payload = bytes(50 * KIB)
        narrow(slow)
        while slow.ws.open:
            await slow_wire.binary(payload)
            await other_wire.text(b"hello")
            assert await other_wire.message() == (TEXT, b"hello")
        assert slow.closes == 1
        assert await slow.hears_at_last("close") == (4008, "output is read too slowly")
        opcode = BINARY
        while opcode == BINARY:
            opcode, received = await slow_wire.message()
            assert opcode == CLOSE or received == payload
        assert received[:2] == (4008).to_bytes(2, "big")
        assert other.closes == 0

    async def test_who_never_reads_again_is_cut(self, pump: Pump) -> None:
        """The farewell is not waited for longer than a close is."""
        endpoint = echo()
        wire, listener = await opened(pump, endpoint, max_queued=64 * KIB)
        narrow(endpoint)
        while endpoint.ws.open:
            await wire.binary(bytes(60 * KIB))
        await connections_of(listener, 0)
        assert pump.connections == 0

    async def test_the_kernel_is_asked_before(self, pump: Pump) -> None:
        """Much output within one tick is no offence while the kernel takes it."""

        def burst(recorder: Recorder, payload: bytes) -> None:
            for _ in range(20):
                recorder.ws.send_binary(bytes(10 * KIB))

        endpoint = Recorder(text=burst)
        wire, _ = await opened(pump, endpoint, max_queued=32 * KIB)
        await wire.text(b"go")
        for _ in range(20):
            assert await wire.message() == (BINARY, bytes(10 * KIB))
        await endpoint.hears("text")
        await endpoint.hears("drained")
        assert endpoint.ws.open

    async def test_the_drop_may_fall_between_two_frames(self, pump: Pump) -> None:
        """Where the kernel has taken whole frames alone, the close frame follows them at once."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint, max_queued=10)
        ws = endpoint.ws
        rest = encode_frame(TEXT, b"one") + encode_frame(TEXT, b"two")
        ws._rest, ws._sent, ws._dirty, ws.queued = rest, 5, True, 5
        pump._agenda.poller.want_write(ws._sock.fileno(), True)
        ws.send_text(b"too much")
        assert await wire.closed_with() == (4008, "output is read too slowly")


class TestClosing:
    """The closing handshake, begun by either side."""

    @pytest.mark.parametrize(("sent", "heard"), [((1000, "bye"), (1000, "bye")), ((4711, ""), (4711, ""))])
    async def test_the_other_side_closes(
        self, patient_pump: Pump, sent: tuple[int, str], heard: tuple[int, str]
    ) -> None:
        """Its code is answered and told; then we end the connection, as servers do."""
        endpoint = Recorder()
        wire, listener = await opened(patient_pump, endpoint)
        await wire.close(*sent)
        assert await endpoint.hears("close") == heard
        assert (await wire.closed_with())[0] == sent[0]
        await wire.ends()
        await wire.stream.aclose()
        await connections_of(listener, 0)
        assert endpoint.closes == 1

    async def test_a_close_without_a_code(self, patient_pump: Pump) -> None:
        """Is answered by one without, and told as 1005."""
        endpoint = Recorder()
        wire, _ = await opened(patient_pump, endpoint)
        await wire.send(masked(CLOSE, b""))
        assert await endpoint.hears("close") == (1005, "")
        assert await wire.message() == (CLOSE, b"")
        await wire.ends()

    @pytest.mark.parametrize(
        ("payload", "code"), [(b"\x03", 1002), (b"\x03\xed", 1002), (b"\x03\xe8\xff", 1007)]
    )
    async def test_a_close_that_breaks_the_rules(self, pump: Pump, payload: bytes, code: int) -> None:
        """Half a code, 1005 on the wire, a reason that is not UTF-8: closed with what is wrong with it."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        await wire.send(masked(CLOSE, payload))
        assert (await wire.closed_with())[0] == code
        assert (await endpoint.hears("close"))[0] == code

    async def test_we_close(self, patient_pump: Pump) -> None:
        """Behind what is queued; what comes until the answer goes nowhere, nor do further sends."""
        endpoint = Recorder()
        wire, listener = await opened(patient_pump, endpoint)
        ws = endpoint.ws
        ws.send_text(b"last words")
        ws.close(4001, "who are you?")
        assert not ws.open
        ws.send_text(b"no more")
        ws.send_binary(b"no more")
        ws.send_frame(b"no more")
        ws.ping()
        ws.close(1000)
        assert await endpoint.hears("close") == (4001, "who are you?")
        assert await wire.message() == (TEXT, b"last words")
        assert await wire.closed_with() == (4001, "who are you?")
        await wire.send(masked(TEXT, b"too late") + masked(PING, b""))
        await wire.close(1000)
        await wire.ends()
        await wire.stream.aclose()
        await connections_of(listener, 0)
        assert endpoint.heard_nothing()

    async def test_an_answer_that_breaks_the_rules_ends_it(self, patient_pump: Pump) -> None:
        """A violation while we close is not answered by a second close frame."""
        endpoint = Recorder()
        wire, _ = await opened(patient_pump, endpoint)
        endpoint.ws.close(1000)
        await wire.closed_with()
        await wire.send(b"\xff\xff\xff\xff")
        await wire.ends()

    async def test_without_an_answer_it_is_cut(self, pump: Pump) -> None:
        """In the time that the pump's patience gives."""
        endpoint = Recorder()
        wire, listener = await opened(pump, endpoint)
        endpoint.ws.close(1012)
        await wire.closed_with()
        await connections_of(listener, 0)
        await wire.ends()
        assert endpoint.closes == 1

    async def test_the_answer_may_lie_behind_much_input(self, patient_pump: Pump) -> None:
        """An endpoint that closes on the first of many messages still gets its answer recognised."""
        endpoint = Recorder(text=lambda recorder, payload: recorder.ws.close(1000))
        wire, _ = await opened(patient_pump, endpoint)
        frames = [masked(TEXT, b"")] * (2 * MESSAGES_PER_SOCKET) + [masked(CLOSE, b"")]
        await wire.send(b"".join(frames))
        await wire.closed_with()
        await wire.ends()
        await endpoint.hears("text")
        await endpoint.hears("close")
        assert endpoint.heard_nothing()

    async def test_a_reply_waits_for_what_is_backed_up(self, patient_pump: Pump) -> None:
        """A client that closes while it is behind gets the rest, then the reply; its flood goes nowhere."""
        endpoint = Recorder()
        wire, _ = await opened(patient_pump, endpoint)
        sent = await backed_up(endpoint)
        await wire.close(1000)
        assert await endpoint.hears_at_last("close") == (1000, "")
        await wire.send(bytes(100))
        for _ in range(sent):
            assert (await wire.message())[0] == BINARY
        await wire.closed_with()
        await wire.ends()

    async def test_abort_cuts(self, pump: Pump) -> None:
        """At once: told as 1006, and the other side gets a reset."""
        endpoint = Recorder()
        wire, listener = await opened(pump, endpoint)
        endpoint.ws.abort()
        endpoint.ws.abort()
        endpoint.ws.close(1000)
        assert await endpoint.hears("close") == (1006, "aborted")
        assert await wire.all() == b""
        await connections_of(listener, 0)
        assert endpoint.closes == 1

    async def test_a_code_that_may_not_be_sent(self, pump: Pump) -> None:
        """Is the caller's mistake, and the socket stays open."""
        endpoint = Recorder()
        await opened(pump, endpoint)
        with pytest.raises(ValueError, match="1006"):
            endpoint.ws.close(1006)
        assert endpoint.ws.open

    async def test_it_may_close_when_it_opens(self, patient_pump: Pump) -> None:
        """The way to tell a browser why it is not let in."""
        endpoint = Recorder(open=lambda recorder: recorder.ws.close(4001, "no token"))
        wire, _ = await opened(patient_pump, endpoint)
        assert await wire.closed_with() == (4001, "no token")
        await wire.close(4001)
        await wire.ends()


class TestBreaking:
    """What the other side, or the network, does wrong."""

    @pytest.mark.parametrize(
        "sent",
        [b"", masked(TEXT, b"half")[:-1], masked(TEXT, bytes(70_000))[:5]],
        ids=["nothing", "half a frame", "half a header"],
    )
    async def test_the_end_without_a_close_frame(self, pump: Pump, sent: bytes) -> None:
        """Between frames or within one: 1006."""
        endpoint = Recorder()
        wire, listener = await opened(pump, endpoint)
        if sent:
            await wire.send(sent)
        await wire.stream.aclose()
        assert (await endpoint.hears("close"))[0] == 1006
        await connections_of(listener, 0)

    async def test_a_reset(self, pump: Pump) -> None:
        """1006, and why."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        wire.reset()
        assert await endpoint.hears("close") == (1006, "Connection reset by peer")

    async def test_a_reset_while_output_waits(self, pump: Pump) -> None:
        """Found by whichever of reading and writing comes first."""
        endpoint = Recorder()
        wire, listener = await opened(pump, endpoint)
        await backed_up(endpoint)
        wire.reset()
        assert (await endpoint.hears_at_last("close"))[0] == 1006
        await connections_of(listener, 0)

    async def test_a_reset_while_we_close(self, pump: Pump) -> None:
        """Behind much output: told once, with our code."""
        endpoint = Recorder()
        wire, listener = await opened(pump, endpoint)
        await backed_up(endpoint)
        endpoint.ws.close(1000)
        wire.reset()
        await connections_of(listener, 0)
        assert await endpoint.hears_at_last("close") == (1000, "")
        assert endpoint.closes == 1

    async def test_what_was_sent_before_the_break_is_read(self, pump: Pump) -> None:
        """A write that fails does not hide the messages, and the close frame, that came before."""
        endpoint = Recorder()
        wire, _ = await opened(pump, endpoint)
        await wire.send(masked(TEXT, b"first") + masked(CLOSE, b"\x03\xe9"))
        endpoint.ws._sock.shutdown(socket.SHUT_WR)  # no checkpoint since: it has not been read
        endpoint.ws.send_text(b"fails")
        pump._agenda.in_tick = True
        pump._settle()  # the flush comes before the read
        assert await endpoint.hears("text") == b"first"
        assert await endpoint.hears("close") == (1001, "")

    async def test_a_write_that_fails_with_nothing_to_read(self, pump: Pump) -> None:
        """Is the end, too; also for what the kernel had refused."""
        for prepare in (lambda _: None, lambda ws: ws._write()):
            endpoint = Recorder()
            _wire, listener = await opened(pump, endpoint)
            narrow(endpoint)
            endpoint.ws.send_binary(bytes(900 * KIB))
            prepare(endpoint.ws)
            endpoint.ws._sock.shutdown(socket.SHUT_WR)
            assert await endpoint.hears_at_last("close") == (1006, "the connection broke")
            await connections_of(listener, 0)

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            pytest.param(encode_frame(TEXT, b"x"), 1002, id="not masked"),
            pytest.param(b"\xc1\x80\x00\x00\x00\x00", 1002, id="RSV1"),
            pytest.param(b"\xa1\x80\x00\x00\x00\x00", 1002, id="RSV2"),
            pytest.param(b"\x91\x80\x00\x00\x00\x00", 1002, id="RSV3"),
            pytest.param(b"\x83\x80\x00\x00\x00\x00", 1002, id="a reserved opcode"),
            pytest.param(masked(TEXT, b"\xff"), 1007, id="not UTF-8"),
            pytest.param(masked(TEXT, bytes(1001)), 1009, id="too long"),
            pytest.param(masked(BINARY, bytes(100_000))[:10], 1009, id="the start of what is too long"),
        ],
    )
    async def test_a_violation_is_answered(self, patient_pump: Pump, sent: bytes, code: int) -> None:
        """What came before it is handled; then its code, on the wire and to the endpoint, and the end."""
        endpoint = echo()
        wire, listener = await opened(patient_pump, endpoint, max_message=1000)
        await wire.send(masked(TEXT, b"fine") + sent)
        assert await wire.message() == (TEXT, b"fine")
        wire_code, reason = await wire.closed_with()
        await endpoint.hears("text")
        assert await endpoint.hears("close") == (wire_code, reason) == (code, reason)
        await wire.ends()
        await wire.stream.aclose()
        await connections_of(listener, 0)

    async def test_a_violation_behind_many_messages(self, patient_pump: Pump) -> None:
        """They are all handled before, though it takes several ticks."""
        endpoint = Recorder()
        wire, _ = await opened(patient_pump, endpoint)
        await wire.send(masked(TEXT, b"") * (2 * MESSAGES_PER_SOCKET) + b"\xff\xff")
        for _ in range(2 * MESSAGES_PER_SOCKET):
            await endpoint.hears("text")
        assert (await endpoint.hears("close"))[0] == 1002


class TestFailingEndpoint:
    """An endpoint with a bug."""

    @staticmethod
    def fail(*_: object) -> None:
        """The bug."""
        raise ZeroDivisionError

    @pytest.mark.parametrize("event", ["open", "text", "binary", "pong", "drained"])
    async def test_it_is_closed_and_logged(self, patient_pump: Pump, event: str) -> None:
        """With 1011, once, whole; its neighbour notices nothing."""
        endpoint, neighbour = Recorder(**{event: self.fail}), echo()
        listener = patient_pump.listen("127.0.0.1:0", door_to(endpoint, neighbour))
        with capture_logs() as logs:
            wire = await Wire.upgraded(listener.address)
            await until(lambda: endpoint.socket is not None)
            endpoint.ws.low_water = 10
            other = await Wire.upgraded(listener.address)
            if event == "drained":
                endpoint.ws.send_text(b"more than that mark")
                await wire.message()
            await wire.send(masked(TEXT, b"1") + masked(BINARY, b"2") + masked(PONG, b"3"))
            assert (await wire.closed_with())[0] == 1011
            await wire.ends()
        assert await endpoint.hears_at_last("close") == (1011, "internal error")
        assert [log["exc_info"] for log in logs] == [True]
        await other.text(b"still here")
        assert await other.message() == (TEXT, b"still here")

    @pytest.mark.parametrize("end", [b"\xff\xff", masked(CLOSE, b"\x03\xe8")], ids=["garbage", "a close"])
    async def test_what_came_behind_goes_nowhere(self, patient_pump: Pump, end: bytes) -> None:
        """Messages of the same read, a violation and a close frame included, while the 1011 is backed up."""
        endpoint = Recorder(text=self.fail)
        wire, _ = await opened(patient_pump, endpoint)
        sent = await backed_up(endpoint)
        with capture_logs() as logs:
            await wire.send(masked(TEXT, b"") * (2 * MESSAGES_PER_SOCKET) + end)
            assert await endpoint.hears_at_last("text") == b""
            assert await endpoint.hears("close") == (1011, "internal error")
            for _ in range(sent):
                assert (await wire.message())[0] == BINARY
            assert (await wire.closed_with())[0] == 1011
            await wire.ends()
        assert len(logs) == 1
        assert endpoint.heard_nothing()

    async def test_at_its_end(self, patient_pump: Pump) -> None:
        """One that fails when it is told of the end: logged, and the end goes on."""
        endpoint = Recorder(close=self.fail)
        wire, listener = await opened(patient_pump, endpoint)
        with capture_logs() as logs:
            await wire.close(1000)
            await wire.closed_with()
            await wire.ends()
        assert [log["exc_info"] for log in logs] == [True]
        await wire.stream.aclose()
        await connections_of(listener, 0)

    async def test_after_it_has_closed(self, patient_pump: Pump) -> None:
        """One that closes and then fails: the first code stands."""

        def close_and_fail(recorder: Recorder, payload: bytes) -> None:
            recorder.ws.close(4001)
            raise ZeroDivisionError

        endpoint = Recorder(text=close_and_fail)
        wire, _ = await opened(patient_pump, endpoint)
        with capture_logs() as logs:
            await wire.text(b"")
            assert (await wire.closed_with())[0] == 4001
            await wire.ends()
        assert len(logs) == 1
        assert await endpoint.hears_at_last("close") == (4001, "")


def ends_by_close(endpoint: Recorder, wire: Wire) -> None:
    """We close, and the other side goes."""
    endpoint.ws.close(1000)
    wire.stream.socket.close()


def ends_by_abort(endpoint: Recorder, wire: Wire) -> None:
    """We cut."""
    endpoint.ws.abort()


def ends_by_reset(endpoint: Recorder, wire: Wire) -> None:
    """They cut."""
    wire.reset()


@pytest.mark.parametrize("end", [ends_by_close, ends_by_abort, ends_by_reset])
async def test_a_closed_socket_is_freed_at_once(pump: Pump, end: Callable[[Recorder, Wire], None]) -> None:
    """By its last reference, not by the collector: no cycle is left, and no timer holds it."""
    endpoint = echo()
    wire, listener = await opened(pump, endpoint)
    await wire.text(b"hello")
    await wire.message()
    gone = weakref.ref(endpoint)
    gc.collect()
    gc.disable()
    try:
        end(endpoint, wire)
        await connections_of(listener, 0)
        del endpoint
        await until(lambda: gone() is None)
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Socket)]
    finally:
        gc.enable()
    with trio.fail_after(DEADLINE_S):
        await wait_all_tasks_blocked()
