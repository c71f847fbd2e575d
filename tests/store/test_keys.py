import pytest

from ring.protocol.codes import BadRequest
from ring.store.keys import Keys


def test_channels_of_rooms() -> None:
    """A room's channel names cluster and room, adds no hash tag, and leads back to the room."""
    keys = Keys("demo")
    assert keys.channel("köln:{1}") == "ring:demo:room:köln:{1}".encode()
    for room in ("a", "köln:{1}", "ring:demo:room:a"):
        assert keys.room(keys.channel(room)) == room


@pytest.mark.parametrize(
    "channel", [b"", b"a", b"ring:demo2:room:a", b"ring:{demo}:table", b"ring:demo:rooma"]
)
def test_channels_of_others(channel: bytes) -> None:
    """What is no room's channel in this cluster is refused."""
    with pytest.raises(ValueError, match="cluster demo"):
        Keys("demo").room(channel)


def test_keys_share_one_hash_tag() -> None:
    """All keys of membership carry the cluster's name as their only hash tag, and no two are the same."""
    keys = Keys("demo")
    names = [keys.members, keys.leases, keys.epoch, keys.geometry, keys.table]
    assert keys.members == "ring:{demo}:members"
    assert all(name.startswith("ring:{demo}:") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cluster", ["a", "A.b_c-9", "x" * 64])
def test_names_that_may_name_a_cluster(cluster: str) -> None:
    """1 to 64 letters, digits, dots, underscores and dashes."""
    assert Keys(cluster).cluster == cluster


@pytest.mark.parametrize("cluster", ["", "x" * 65, "a b", "a}b", "a{b", "a:b", "é", "a\n"])
def test_other_names_are_refused(cluster: str) -> None:
    """Anything else, above all what could end the hash tag, is refused."""
    with pytest.raises(BadRequest, match="cluster"):
        Keys(cluster)
