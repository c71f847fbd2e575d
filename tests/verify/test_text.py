"""What the crowd's messages carry."""

import msgspec
import pytest

from ring.protocol import client as wire
from ring.verify.record import Key
from ring.verify.text import Strange, body, by_of, code_of, key_in, key_of, key_of_id

KEY = Key("alice", "bob", 7)


def message(sender: str, data: msgspec.Raw) -> wire.Message:
    """As it comes."""
    return wire.Message(sender, "m1", "1-1", data, 0)


def test_there_and_back() -> None:
    """A message says which it is, in its data and in its id."""
    assert key_in(body(KEY, "xxx")) == KEY
    assert key_of(message("alice", body(KEY, ""))) == KEY
    assert key_of_id(str(KEY)) == KEY


def test_strange() -> None:
    """What the crowd does not send is told in words."""
    with pytest.raises(Strange, match="data that nobody sent"):
        key_of(message("alice", msgspec.Raw(b'{"n":1}')))
    with pytest.raises(Strange, match="alice>bob#7 from 'eve'"):
        key_of(message("eve", body(KEY, "")))


@pytest.mark.parametrize("message_id", ["", "m1", "alice>bob", "alice>bob#x", ">bob#1", "alice>#1"])
def test_strange_ids(message_id: str) -> None:
    """A receipt for an id that the crowd does not give is strange."""
    with pytest.raises(Strange, match="which nobody sent"):
        key_of_id(message_id)


def test_receipts() -> None:
    """What a receipt leaves out is None."""
    assert (code_of(wire.Receipt("1", "delivered")), by_of(wire.Receipt("1", "delivered"))) == (None, None)
    assert by_of(wire.Receipt("1", "delivered", "pong")) == "pong"
