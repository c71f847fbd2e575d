import pytest

from ring.protocol.codes import BadRequest
from ring.store.keys import Keys


def test_channels_of_rooms() -> None:
    """A room's channel names cluster and room, adds no hash tag, and is no other room's."""
    assert Keys("demo").channel("köln:{1}") == "ring:demo:room:köln:{1}".encode()
    clusters, rooms = ("demo", "demo2"), ("a", "köln:{1}", "ring:demo:room:a", "2:room:a")
    channels = {Keys(cluster).channel(room) for cluster in clusters for room in rooms}
    assert len(channels) == len(clusters) * len(rooms)


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
