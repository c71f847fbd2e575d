"""Names, ids, slots and queries: what is valid, and that a node sees what HAProxy sees."""

import zlib
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.protocol.codes import BadRequest
from ring.protocol.names import ID_BYTES, NAME_BYTES, SLOTS, check_id, check_name, parse_query, slot_of

modest = settings(max_examples=100, deadline=None)
characters = st.characters(exclude_categories=["Cs", "Cc"])
names = st.text(characters, min_size=1, max_size=63)


@modest
@given(names)
def test_a_slot_is_the_crc32_of_the_utf8_name(name: str) -> None:
    """The slot is crc32 over the name's UTF-8 bytes, masked to the number of slots."""
    slot = slot_of(name)
    assert slot == zlib.crc32(name.encode("utf-8")) & 16383
    assert 0 <= slot < SLOTS


@pytest.mark.parametrize(
    ("query", "user", "slot"),
    [
        ("user=a", "a", 15939),
        ("user&user=b", "b", 12281),
        ("user=a?b", "a", 15939),
        ("x=1?user=c", "c", 8047),
        ("x=1;user=d", "d", 2764),
        ("user=a+b", "a b", 7379),
        ("user=a;b", "a", 15939),
        ("user=a=b", "a=b", 12495),
        ("user=a%26b", "a&b", 15189),
        ("&&user=h", "h", 1767),
        ("=&user=j", "j", 10187),
        ("user=a%3Fb", "a?b", 4685),
        ("user=caf%C3%A9", "café", 693),
        ("user=a&user=b", "a", 15939),
    ],
)
def test_queries_as_haproxy_reads_them(query: str, user: str, slot: int) -> None:
    """User and slot are those that HAProxy 2.6 answered for the same query, odd delimiters included."""
    read = parse_query(query)["user"]
    assert read == user
    assert slot_of(read) == slot


@modest
@given(st.dictionaries(st.sampled_from(["user", "device", "ack"]), st.text(characters)))
def test_what_a_client_encodes_is_read_back(parameters: dict[str, str]) -> None:
    """A form-encoded query gives its parameters back, whatever characters they hold."""
    assert parse_query(urlencode(parameters)) == parameters


@pytest.mark.parametrize("query", ["", "&", "user", "us%65r=a", "User=a", "user%3Da", "?;&"])
def test_queries_without_the_parameter(query: str) -> None:
    """A name without `=`, in another case or with escapes in it is not the parameter."""
    assert "user" not in parse_query(query)


def test_a_value_may_be_empty() -> None:
    """`user=` is an empty value, and takes precedence over a later one."""
    assert parse_query("user=&user=e") == {"user": ""}


@pytest.mark.parametrize("value", ["%", "%4", "%zz", "a%4gb", "%ff", "%ed%a0%80", "%C3"])
def test_broken_values_are_refused(value: str) -> None:
    """Broken escapes and bytes that are not UTF-8 are refused, naming the parameter and not its value."""
    with pytest.raises(BadRequest, match="query: token is not form-encoded UTF-8") as caught:
        parse_query(f"user=a&token={value}")
    assert value not in str(caught.value)


@modest
@given(names)
def test_valid_names(name: str) -> None:
    """Up to 255 bytes of UTF-8 without control characters are a name, returned as it is."""
    assert len(name.encode()) <= NAME_BYTES
    assert check_name(name, "user") is name


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\u202e", " ", "a/b", "\ufeff", "e\u0301"])
def test_names_at_the_edges(name: str) -> None:
    """The longest names, and characters that look odd but control nothing, are allowed."""
    assert check_name(name, "room") is name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "1 to 255 bytes"),
        ("x" * 256, "not 256"),
        ("é" * 128, "not 256"),
        ("a\0", "control"),
        ("a\n", "control"),
        ("\x7f", "control"),
        ("é\x85", "control"),
        ("\x9f", "control"),
        ("\ud800", "surrogate"),
        ("a\udfff", "surrogate"),
    ],
)
def test_invalid_names(name: str, reason: str) -> None:
    """Too short, too long, control characters and lone surrogates are refused, saying of what and why."""
    with pytest.raises(BadRequest, match=f"^user: .*{reason}"):
        check_name(name, "user")


def test_names_are_not_normalised() -> None:
    """Two spellings of the same letter are two users."""
    assert slot_of(check_name("\u00e9", "user")) != slot_of(check_name("e\u0301", "user"))


@pytest.mark.parametrize("message_id", ["x", "x" * ID_BYTES, "é" * (ID_BYTES // 2), "\n"])
def test_valid_ids(message_id: str) -> None:
    """An id is any 1 to 64 bytes of UTF-8."""
    assert check_id(message_id) is message_id


@pytest.mark.parametrize("message_id", ["", "x" * 65, "é" * 33, "\ud800"])
def test_invalid_ids(message_id: str) -> None:
    """Empty, longer or unencodable ids are refused."""
    with pytest.raises(BadRequest, match=r"^id: "):
        check_id(message_id)
