"""Redis Pub/Sub is for rooms alone: whoever else used it would bring back what Ring is there to replace."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2] / "ring"
MODULES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in ROOT.rglob("*.py")}
BESIDE = ("bench/", "client/")  # no part of a node: they say "publish" to one


def modules(pattern: str) -> set[str]:
    """Those that have this in their text."""
    return {
        name for name, text in MODULES.items() if re.search(pattern, text) and not name.startswith(BESIDE)
    }


def test_rooms_alone_listen() -> None:
    """Beside the node, which makes the subscriber and hands it to them."""
    assert modules(r"\bstore\.subscriber\b") == {"rooms/rooms.py", "node.py"}
    assert re.findall(r"\bsubscriber\b", MODULES["node.py"], re.IGNORECASE) != []
    assert not re.search(r"subscriber\.(take|subscribe|unsubscribe)\b", MODULES["node.py"])


def test_rooms_alone_publish() -> None:
    """By their publisher; neither by redis-py's method nor by a script's PUBLISH."""
    assert modules(r"""["'](S?PUBLISH|publish)["']""") <= {"rooms/publisher.py", "protocol/client.py"}
    assert modules(r"\bPUBLISH\b") <= {
        "rooms/publisher.py",
        "rooms/rooms.py",
        "protocol/broadcast.py",
    }
    assert modules(r"(redis|pipeline|store)\.s?publish\(") == set()
    assert modules(r"\.pubsub\(|\b[sp]subscribe\(") == set()


def test_the_store_alone_subscribes() -> None:
    """Through its subscriber; the shared connection refuses to."""
    assert modules(r"""["']S?SUBSCRIBE["']""") <= {"store/client.py", "store/subscriber.py"}
