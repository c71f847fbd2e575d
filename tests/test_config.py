"""The settings of a node: where values come from, what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pytest

from ring.config import OPTIONS, Settings, SettingsError, is_loopback, load, read_secret, split_address
from ring.mailbox.spill import PATIENCE_S
from ring.mailbox.vault import MAX_WAIT_S

SECRET = "0123456789abcdef0123456789abcdef"


def refusal(
    flags: dict[str, object], environ: dict[str, str] | None = None, config: Path | None = None
) -> str:
    """What `load` says about these; the name is given."""
    with pytest.raises(SettingsError) as caught:
        load({"name": "n1", **flags}, environ or {}, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """The path of a file with a good secret."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return str(path)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """The path of a configuration file, still to be written."""
    return tmp_path / "ring.toml"


class TestSources:
    def test_the_name_alone_is_enough(self) -> None:
        """All else has a default, and the defaults pass their own checks."""
        assert load({"name": "n1"}, {}) == Settings(name="n1")

    def test_the_name_is_needed(self) -> None:
        """A node without a name is refused, with all three ways to give one."""
        with pytest.raises(
            SettingsError, match=r"^name is missing: give --name, RING_NAME or name in a file$"
        ):
            load({}, {})

    def test_flags_count_before_the_environment_before_the_file(self, toml: Path) -> None:
        """Each source gives what the ones before it leave open."""
        toml.write_text('name = "file"\ncluster = "file"\nweight = 7\n')
        settings = load({"name": "flag", "cluster": None}, {"RING_NAME": "env", "RING_CLUSTER": "env"}, toml)
        assert (settings.name, settings.cluster, settings.weight) == ("flag", "env", 7)

    def test_the_file_may_be_named_by_the_environment(self, toml: Path) -> None:
        """RING_CONFIG names it where no flag does."""
        toml.write_text('name = "n7"')
        assert load({}, {"RING_CONFIG": str(toml)}).name == "n7"

    def test_every_option_is_taken_from_every_source(self, toml: Path, secret: str) -> None:
        """An option that one source did not know would be a hole in the table."""
        values: dict[str, Any] = {
            "name": "x",
            "cluster": "y",
            "redis": "embedded",
            "allow_origin": ["https://a", "https://b"],
            "trusted_proxies": ["10.0.0.0/8", "127.0.0.1"],
            "room_policy": ["a*=drop_oldest", "b=disconnect"],
            "auth": "none",
            "secret_file": secret,
            "api_key_file": secret,
            "peer_insecure": True,
            "mailbox_bytes": 10_001,
            "mailbox_replicas": 2,
            "mailbox_fsync": True,
            "mailbox_wait_s": 0.5,
            "log_level": "debug",
            "log_format": "json",
        }
        for option in OPTIONS:
            if option.plain is int:
                values.setdefault(option.name, 1000 if option.name == "message_bytes" else 1001)
            elif option.plain is float:
                values.setdefault(option.name, 5.5)
            else:
                values.setdefault(option.name, "127.0.0.1:8765")
        values |= {"weight": 3, "output_bytes": 5000}
        lines = [
            f"{name} = {str(value).lower() if value is True else repr(value)}"
            for name, value in values.items()
        ]
        toml.write_text("\n".join(lines))
        texts = {
            name: ",".join(value)
            if isinstance(value, list)
            else str(value).lower()
            if value is True
            else str(value)
            for name, value in values.items()
        }
        from_file = load({}, {}, toml)
        from_environ = load({}, {"RING_" + name.upper(): text for name, text in texts.items()})
        lists = {name: value for name, value in values.items() if isinstance(value, list)}
        from_flags = load({**texts, **lists}, {})
        assert from_file == from_environ == from_flags
        for option in OPTIONS:
            if option.name != "auth":  # it has one value that is allowed
                assert getattr(from_file, option.name) != option.default

    def test_a_relative_path_in_a_file_is_from_the_file(self, toml: Path, secret: str) -> None:
        """The same file works from wherever the node is started."""
        toml.write_text('name = "n1"\nsecret_file = "secret"\n')
        assert load({}, {}, toml).secret_file == Path(secret)


class TestUnknown:
    def test_a_key_of_the_file_that_is_misspelt(self, toml: Path) -> None:
        """The nearest known one is named."""
        toml.write_text("lingers_s = 1\n")
        assert refusal({}, config=toml).endswith("no option is called lingers_s; did you mean linger_s?")

    def test_a_variable_that_is_misspelt(self) -> None:
        """The nearest known one is named."""
        said = refusal({}, {"RING_HEARTBEATS": "1"})
        assert said == "environment: no option is called RING_HEARTBEATS; did you mean RING_HEARTBEAT_S?"

    def test_a_name_that_is_near_to_none(self, toml: Path) -> None:
        """Then the list of all is pointed at."""
        toml.write_text("zzz = 1\n")
        assert "docs/reference/configuration.md" in refusal({}, config=toml)

    def test_what_container_platforms_set_is_no_option(self) -> None:
        """A service called `ring` puts its ports into everybody's environment."""
        environ = {"RING_PORT": "tcp://10.0.0.1:80", "RING_PORT_80_TCP": "x", "RING_SERVICE_HOST": "10.0.0.1"}
        assert load({"name": "n1"}, environ) == Settings(name="n1")

    def test_the_url_that_commands_read_is_no_address_to_listen_at(self) -> None:
        """RING_API may hold either; a URL is for `ring status` and its like."""
        assert load({"name": "n1"}, {"RING_API": "http://10.0.0.1:7001"}).api == "127.0.0.1:7001"
        assert load({"name": "n1"}, {"RING_API": "127.0.0.1:7009"}).api == "127.0.0.1:7009"

    @pytest.mark.parametrize("text", ["name = ", "\xff\xfe"])
    def test_a_file_that_is_no_toml(self, toml: Path, text: str) -> None:
        """It is refused as a whole."""
        toml.write_bytes(text.encode("latin-1"))
        assert f"config: {toml} is no TOML: " in refusal({}, config=toml)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """A file that was named must be there."""
        assert refusal({}, config=tmp_path / "none.toml").endswith("none.toml: No such file or directory")


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value", "expects"),
        [
            ("ttl_s", "soon", "a number of seconds, 0.3 to 3600"),
            ("ttl_s", "0", "a number of seconds, 0.3 to 3600"),
            ("ttl_s", "nan", "a number of seconds, 0.3 to 3600"),
            ("heartbeat_s", "0", "a number of seconds above 0, up to 86400"),
            ("linger_s", "-1", "a number of seconds, 0 to 86400"),
            ("spill_after_s", "inf", "a number of seconds above 0, up to 86400"),
            ("weight", "0", "a whole number, 1 to 1000"),
            ("weight", "1.5", "a whole number, 1 to 1000"),
            ("message_bytes", "1k", "a whole number of bytes, 128 to 16777216"),
            ("max_connections", "0", "a whole number, 1 or more"),
            ("mailbox_messages", "-1", "a whole number, 0 to 1048576"),
            ("mailbox_messages", "all", "a whole number, 0 to 1048576"),
            ("mailbox_bytes", "1023", "a whole number of bytes, 1024 to 1073741824"),
            ("mailbox_keep_s", "0", "a number of seconds above 0, up to 31536000"),
            ("mailbox_replicas", "17", "a whole number, 0 to 16"),
            ("mailbox_fsync", "always", "true or false"),
            ("mailbox_wait_s", "0", "a number of seconds above 0, up to 1.5"),
            ("mailbox_wait_s", "2", "a number of seconds above 0, up to 1.5"),
            ("auth", "basic", "one of none, jwt"),
            ("log_format", "xml", "one of console, json"),
            ("secret_file", "", "the path of a file"),
        ],
    )
    def test_a_value_that_is_not_of_the_option(self, name: str, value: str, expects: str) -> None:
        """The refusal says whose value it was, what it was, and what one must be."""
        option = next(option for option in OPTIONS if option.name == name)
        assert refusal({name: value}) == f"{option.flag}: {value!r} is not {expects}"
        assert refusal({}, {option.variable: value}) == f"{option.variable}: {value!r} is not {expects}"

    def test_the_file_has_types_of_its_own(self, toml: Path) -> None:
        """What is quoted in TOML is a text, and no number."""
        toml.write_text('weight = "2"\n')
        assert refusal({}, config=toml) == f"{toml}: weight: '2' is not a whole number, 1 to 1000"
        toml.write_text("edge = 8001\n")
        assert refusal({}, config=toml) == f"{toml}: edge: 8001 is not an address, host:port"
        toml.write_text("allow_origin = 5\n")
        assert refusal({}, config=toml) == f"{toml}: allow_origin: 5 is not a list of texts"
        toml.write_text("secret_file = 5\n")
        assert refusal({}, config=toml) == f"{toml}: secret_file: 5 is not the path of a file"
        toml.write_text("peer_insecure = 5\n")
        assert refusal({}, config=toml) == f"{toml}: peer_insecure: 5 is not true or false"

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "é", "x" * 65])
    def test_names_of_nodes_and_clusters(self, name: str) -> None:
        """They end up in keys and in a balancer's configuration: a narrow alphabet."""
        assert refusal({"name": name}).startswith("name: 1 to 64 of")
        assert refusal({"cluster": name}).startswith("cluster: 1 to 64 of")

    @pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1", "Embedded"])
    def test_what_is_no_redis(self, url: str) -> None:
        """A URL of redis-py's kinds, or `embedded`."""
        assert refusal({"redis": url}).startswith("redis: give a URL")

    def test_a_client_must_be_able_to_get_one_message(self) -> None:
        """The output bound is above the message bound."""
        assert refusal({"output_bytes": "65536"}).startswith("output_bytes: must be above message_bytes")

    def test_a_mailbox_must_have_room_for_messages(self) -> None:
        """Else one that is allowed to be sent might never be stored."""
        assert refusal({"mailbox_bytes": "131072"}).startswith(
            "mailbox_bytes: must be above twice message_bytes"
        )
        assert load({"name": "n1", "mailbox_bytes": "131073"}, {}).mailbox_bytes == 131_073

    def test_waiting_for_replicas_ends_before_the_store_counts_as_away(self) -> None:
        """And within what a mailbox's connection may be held up."""
        longest = load({"name": "n1", "mailbox_wait_s": "1.5"}, {}).mailbox_wait_s
        assert longest < min(PATIENCE_S, MAX_WAIT_S)

    @pytest.mark.parametrize(
        "address", ["8001", "127.0.0.1", ":8001", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "[]:80", "h:²"]
    )
    def test_what_is_no_address(self, address: str) -> None:
        """`host:port`; brackets around the host of IPv6."""
        assert refusal({"edge": address}) == f"edge: {address!r} is not an address, host:port"
        assert (
            refusal({"edge_advertise": address})
            == f"edge_advertise: {address!r} is not an address, host:port"
        )

    def test_addresses_are_taken_apart(self) -> None:
        """Host and port, without the brackets of IPv6."""
        assert split_address("127.0.0.1:0", "x") == ("127.0.0.1", 0)
        assert split_address("[::1]:65535", "x") == ("::1", 65535)


class TestSafety:
    @pytest.mark.parametrize(
        ("address", "loopback"),
        [
            ("127.0.0.1:1", True),
            ("127.9.9.9:1", True),
            ("[::1]:1", True),
            ("localhost:1", True),
            ("10.0.0.1:1", False),
            ("[::]:1", False),
            ("ring.example:1", False),
        ],
    )
    def test_loopback(self, address: str, loopback: bool) -> None:
        """Only what cannot be reached from another machine counts."""
        assert is_loopback(address) is loopback

    def test_without_tokens_clients_come_from_this_machine_alone(self) -> None:
        """With auth none everybody can be anybody."""
        assert refusal({"edge": "10.0.0.1:8001"}).startswith("edge: with auth none anybody could be anyone")

    def test_tokens_are_not_there_yet(self) -> None:
        """Better no node than one that does not check what it was told to check."""
        assert refusal({"auth": "jwt"}).startswith("auth: this release has no tokens yet")

    def test_peers_beyond_loopback_prove_themselves(self, secret: str) -> None:
        """They need the secret, and consent to the want of TLS."""
        assert "give --secret-file" in refusal({"peer": "10.0.0.1:9001"})
        assert "give --peer-insecure" in refusal({"peer": "10.0.0.1:9001", "secret_file": secret})
        assert load({"name": "n1", "peer": "10.0.0.1:9001", "secret_file": secret, "peer_insecure": True}, {})

    def test_the_api_beyond_loopback_asks_for_a_key(self, secret: str) -> None:
        """Without a key it stays on loopback."""
        assert "give --api-key-file" in refusal({"api": "10.0.0.1:7001"})
        assert load({"name": "n1", "api": "10.0.0.1:7001", "api_key_file": secret}, {}).api_key() == SECRET

    @pytest.mark.parametrize("what", ["edge", "peer", "api"])
    @pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
    def test_everywhere_is_no_address_for_others(self, what: str, host: str) -> None:
        """Who listens everywhere says where others find it."""
        assert f"by --{what}-advertise" in refusal({what: f"{host}:9001"})

    def test_an_advertised_address_is_enough(self, secret: str) -> None:
        """Then listening everywhere is fine."""
        flags: dict[str, object] = {
            "peer": "0.0.0.0:9001",
            "peer_advertise": "10.0.0.1:9001",
            "secret_file": secret,
            "peer_insecure": True,
        }
        assert load({"name": "n1", **flags}, {}).peer == "0.0.0.0:9001"


class TestSecrets:
    def test_the_secret_is_what_the_file_holds(self, secret: str) -> None:
        """Without the line's end that an editor leaves."""
        assert load({"name": "n1", "secret_file": secret}, {}).peer_secret() == SECRET.encode()

    def test_no_file_no_secret(self) -> None:
        """On loopback a node needs neither."""
        settings = load({"name": "n1"}, {})
        assert settings.peer_secret() == b""
        assert settings.api_key() is None

    @pytest.mark.parametrize("option", ["secret_file", "api_key_file"])
    def test_a_short_secret_is_refused(self, tmp_path: Path, option: str) -> None:
        """White space does not make it longer. What it is stays out of the message."""
        path = tmp_path / "short"
        path.write_text("123456789012345" + "\n" * 20)
        said = refusal({option: str(path)})
        assert said == f"{option}: {path} holds 15 bytes; a secret has 16 or more"

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        """The refusal has the system's word for why."""
        with pytest.raises(SettingsError, match=r"cannot read .*: Is a directory"):
            read_secret(tmp_path, "secret_file")

    def test_a_key_must_fit_into_a_header(self, tmp_path: Path) -> None:
        """ASCII alone."""
        path = tmp_path / "key"
        path.write_text("ключ" * 8)
        assert refusal({"api_key_file": str(path)}).endswith("holds more than ASCII, which HTTP cannot carry")
