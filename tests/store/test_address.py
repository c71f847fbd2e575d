import ssl
from pathlib import Path

import pytest
import trustme

from ring.protocol.codes import BadRequest
from ring.store.address import Address, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address()),
        ("redis://example.org:7000/3", Address("example.org", 7000, db=3)),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://:secret@h", Address("h", password="secret")),
        ("redis://al%40ice:s%2Fe%23cret@h/", Address("h", username="al@ice", password="s/e#cret")),
        ("redis://h?db=4", Address("h", db=4)),
        ("redis://h?username=u&password=p", Address("h", username="u", password="p")),
        ("unix:///tmp/x.sock?db=2", Address(path="/tmp/x.sock", db=2)),
        ("unix://u:p@/tmp/x.sock", Address(path="/tmp/x.sock", username="u", password="p")),
    ],
)
def test_urls(url: str, address: Address) -> None:
    """Host, port, database, user and password are read as redis-py reads them."""
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "must begin with redis://"),
        ("localhost:6379", "must begin with redis://"),
        ("http://secret@h", "must begin with redis://"),
        ("redis://h:secret", "malformed"),
        ("redis://:se/cret@h", "malformed"),
        ("redis://h:99999", "malformed"),
        ("redis://[::1", "malformed"),
        ("redis://h?db=secret", "malformed"),
        ("redis://h/secret", "database's number"),
        ("redis://h/-1", "database's number"),
        ("redis://h?max_connections=secret9", "malformed"),
        ("redis://h?max_connections=9", "unknown option 'max_connections'"),
        ("redis://h?colour=secret", "unknown option 'colour'"),
        ("redis://h?ssl_cert_reqs=none", "need rediss://"),
        ("rediss://h?ssl_colour=secret", "unknown TLS option among ssl_colour"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs"),
        ("rediss://h?ssl_min_version=x", "malformed"),
        ("unix://", "three slashes"),
        ("unix://tmp/x.sock", "three slashes"),
    ],
)
def test_bad_urls(url: str, hint: str) -> None:
    """A malformed URL is a BadRequest of one line that says what is wrong and quotes no value."""
    with pytest.raises(BadRequest, match=hint) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_shows_no_password() -> None:
    """The place goes into logs and messages, the login into neither."""
    address = parse_url("redis://alice:secret@example.org:7000/3")
    assert str(address) == "example.org:7000"
    assert "secret" not in repr(address)
    assert str(parse_url("redis://[::1]:7")) == "[::1]:7"
    assert str(parse_url("unix://u:secret@/tmp/x.sock")) == "/tmp/x.sock"


def test_tls_verifies_unless_told_otherwise(tmp_path: Path) -> None:
    """rediss:// checks certificate and host name; redis-py's options change that and name the authority."""
    tls = parse_url("rediss://h").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)

    tls = parse_url("rediss://h?ssl_cert_reqs=none").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_NONE, False)

    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    tls = parse_url(f"rediss://h?ssl_ca_certs={authority}&ssl_check_hostname=false").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert tls.cert_store_stats()["x509_ca"] >= 1


def test_plain_has_no_tls() -> None:
    """redis:// and unix:// are not encrypted."""
    assert parse_url("redis://h").tls is None
    assert parse_url("unix:///tmp/x.sock").tls is None
