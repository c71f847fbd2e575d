"""The policy of a room: by the first pattern that matches its name."""

import pytest

from ring.config import Settings, SettingsError, load
from ring.rooms.policy import Policies


def test_without_patterns_slow_members_are_disconnected() -> None:
    """That is the policy of every room."""
    assert Policies().of("any") == "disconnect"


def test_the_first_match_counts() -> None:
    """In the order in which they are given; what none matches is disconnected."""
    policies = Policies([("news-vip", "disconnect"), ("news-*", "drop_oldest"), ("*-vip", "drop_oldest")])
    assert policies.of("news-vip") == "disconnect"
    assert policies.of("news-1") == "drop_oldest"
    assert policies.of("blog-vip") == "drop_oldest"
    assert policies.of("blog") == "disconnect"


@pytest.mark.parametrize(
    ("pattern", "room", "matches"),
    [
        ("*", "any/thing at all", True),
        ("a?c", "abc", True),
        ("a?c", "abbc", False),
        ("[ab]1", "b1", True),
        ("[!ab]1", "b1", False),
        ("News", "news", False),
        ("news", "news-1", False),
        ("a.c", "abc", False),
        ("é*", "été", True),
    ],
)
def test_patterns_are_those_of_shells(pattern: str, room: str, matches: bool) -> None:
    """Of the whole name; case counts."""
    policy = Policies([(pattern, "drop_oldest")]).of(room)
    assert (policy == "drop_oldest") == matches


def test_they_are_settings() -> None:
    """Read at the last `=`, so that a pattern may have one."""
    settings = Settings(name="n1", room_policy=("a=b*=drop_oldest", "c=disconnect"))
    assert settings.room_policies() == [("a=b*", "drop_oldest"), ("c", "disconnect")]
    environ = {"RING_ROOM_POLICY": "news-*=drop_oldest, x=disconnect"}
    assert load({"name": "n1"}, environ).room_policies() == [("news-*", "drop_oldest"), ("x", "disconnect")]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("news-*", "'news-*' is not PATTERN=POLICY, as in news-*=drop_oldest"),
        ("=drop_oldest", "'=drop_oldest' is not PATTERN=POLICY"),
        ("a=drop", "a policy is one of disconnect, drop_oldest, not 'drop'"),
        ("a=", "a policy is one of disconnect, drop_oldest, not ''"),
    ],
)
def test_a_wrong_one_is_refused_when_it_is_loaded(given: str, says: str) -> None:
    """With what is wrong, and what is right."""
    with pytest.raises(SettingsError, match=r"^room_policy: ") as caught:
        load({"name": "n1", "room_policy": [given]}, {})
    assert says in str(caught.value)
