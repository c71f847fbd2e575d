"""The configuration that is rendered, as the programs themselves read it."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from ring.haproxy.config import MOST_PLACES, Options, render
from ring.protocol.codes import BadRequest
from tests.haproxy.programs import PROGRAMS

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("route_by", ["user", "token"])
def test_haproxy_understands_it(program: str, route_by: str, tmp_path: Path) -> None:
    """Without a warning."""
    (tmp_path / "ring.map").touch()
    (tmp_path / "servers.state").write_text("1\n")
    pem = tmp_path / "ring.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    options = Options(
        listen="*:18000",
        tls_listen="[::1]:18443",
        certificate=str(pem),
        directory=str(tmp_path),
        places=3,
        max_clients=100,
        route_by=route_by,  # type: ignore[arg-type] # as it is parametrized
    )
    config = tmp_path / "haproxy.cfg"
    config.write_text(render(options))
    done = subprocess.run([program, "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stderr, "ALERT" in done.stderr) == (0, False, False), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (Options(listen=None), "nobody could connect"),
        (Options(tls_listen="*:443"), "TLS needs a certificate"),
        (Options(listen="8000"), "not an address"),
        (Options(places=0), f"places is 1 to {MOST_PLACES}, not 0"),
        (Options(directory='/tmp/"'), "no path for HAProxy's configuration"),
    ],
)
def test_what_would_be_none(options: Options, why: str) -> None:
    """It says why."""
    with pytest.raises(BadRequest, match=why):
        render(options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("haproxy.cfg", Options(tls_listen="*:8443", certificate="/etc/haproxy/ring.pem")),
        (
            "haproxy-token.cfg",
            Options(tls_listen="*:8443", certificate="/etc/haproxy/ring.pem", route_by="token"),
        ),
    ],
)
def test_the_files_in_haproxy(name: str, options: Options) -> None:
    """They are what the command that they name writes."""
    text = (REPOSITORY / "haproxy" / name).read_text()
    command = "ring haproxy render --tls-listen '*:8443' --certificate /etc/haproxy/ring.pem"
    if options.route_by == "token":
        command += " --route-by token"
    assert text == render(replace(options, command=command))


def test_it_may_give_up_root(tmp_path: Path) -> None:
    """Then its group may use the socket, and no other name gets into the configuration."""
    text = render(Options(run_as="haproxy"))
    assert "    user haproxy\n    group haproxy\n" in text
    assert "mode 660 user haproxy group haproxy level admin" in text
    assert "\n    user " not in render(Options())
    for name in ("", "ha proxy", "x\n    user root"):
        with pytest.raises(BadRequest, match="no name of a user"):
            render(Options(run_as=name))
