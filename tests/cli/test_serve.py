"""`ring serve`: its flags are the table of options, and the node gets what they say."""

import inspect
from pathlib import Path

import pytest
import structlog
import trio

from ring.cli.main import main
from ring.cli.serve import serve
from ring.config import OPTIONS, Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of the nodes that were run; running one ends at once."""
    settings_of: list[Settings] = []

    async def node(settings: Settings) -> None:
        await trio.lowlevel.checkpoint()
        structlog.get_logger().info("here", password="x")
        settings_of.append(settings)

    monkeypatch.setattr("ring.process.serve", node)
    return settings_of


def test_every_option_is_a_flag() -> None:
    """None is left out, none is added but the file."""
    flags = [name for name in inspect.signature(serve).parameters if name != "config"]
    assert flags == [option.name for option in OPTIONS]


def test_flags_environment_and_file(
    served: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three reach the node, lists and switches too."""
    file = tmp_path / "ring.toml"
    file.write_text("weight = 4\nin_flight = 9\n")
    monkeypatch.setenv("RING_IN_FLIGHT", "8")
    flags = ["--name", "n1", "--peer-insecure", "--allow-origin", "https://a", "--allow-origin", "https://b"]
    assert main(["serve", "--config", str(file), *flags]) == 0
    assert served == [
        Settings(
            name="n1", weight=4, in_flight=8, peer_insecure=True, allow_origin=("https://a", "https://b")
        )
    ]


def test_a_switch_can_be_turned_off(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag overrides the environment in both directions."""
    monkeypatch.setenv("RING_PEER_INSECURE", "true")
    assert main(["serve", "--name", "n1", "--no-peer-insecure"]) == 0
    assert served == [Settings(name="n1")]


def test_a_value_that_is_wrong(served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration's own words, and no node."""
    assert main(["serve", "--name", "n1", "--weight", "heavy"]) == 2
    assert capsys.readouterr().err == "ring: --weight: 'heavy' is not a whole number, 1 to 1000\n"
    assert served == []


def test_the_log_is_on_standard_error(served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output carries what the node says to whoever started it."""
    assert main(["serve", "--name", "n1", "--log-format", "json"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert '"event":"here"' in err.replace(" ", "")
