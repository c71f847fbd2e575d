import pytest
from redis.crc import key_slot

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


def test_keys_of_one_slot_share_one_hash_tag() -> None:
    """All keys of one script are on one node of a Redis Cluster, whatever the user is called.

    Those of another slot, or of another cluster, have another tag, and no two keys are the same.
    """
    users = ("a", "köln:{1}", "}{", "box:a", "{demo/8}")
    slots = [(cluster, slot) for cluster in ("demo", "demo2", "demo.7") for slot in (7, 77, 16383)]
    names, places = set(), set()
    for cluster, slot in slots:
        keys = Keys(cluster)
        mine = {keys.fence(slot)}
        for user in users:
            mine |= {keys.box(slot, user), keys.read_mark(slot, user)}
        assert {name[name.index("{") + 1 : name.index("}")] for name in mine} == {f"{cluster}/{slot}"}
        (place,) = {key_slot(name.encode()) for name in mine}
        places.add(place)
        names |= mine
    assert len(places) == len(slots)
    assert len(names) == len(slots) * (1 + 2 * len(users))
    assert Keys("demo").box(7, "köln") == "ring:{demo/7}:box:köln"


@pytest.mark.parametrize("cluster", ["a", "A.b_c-9", "x" * 64])
def test_names_that_may_name_a_cluster(cluster: str) -> None:
    """1 to 64 letters, digits, dots, underscores and dashes."""
    assert Keys(cluster).cluster == cluster


@pytest.mark.parametrize("cluster", ["", "x" * 65, "a b", "a}b", "a{b", "a:b", "é", "a\n"])
def test_other_names_are_refused(cluster: str) -> None:
    """Anything else, above all what could end the hash tag, is refused."""
    with pytest.raises(BadRequest, match="cluster"):
        Keys(cluster)
