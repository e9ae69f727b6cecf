"""Urls of Redis: what they may say, and that nothing else gets through to the driver, or into an error."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core.errors import ConfigError
from jobqueue_core.urls import scheme_of
from jobqueue_redis.addresses import SCHEMES, Address, Login, read_address
from jobqueue_redis.plugin import jobqueue_brokers
from jobqueue_redis.wire import Wire

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", Address(kind="single", hosts=(("localhost", 6379),))),
        ("redis://h", Address(kind="single", hosts=(("h", 6379),))),
        ("redis://h:1/", Address(kind="single", hosts=(("h", 1),))),
        ("redis://h:1/3", Address(kind="single", hosts=(("h", 1),), db=3)),
        ("redis://h?db=3", Address(kind="single", hosts=(("h", 6379),), db=3)),
        ("redis://:pw@h", Address(kind="single", hosts=(("h", 6379),), login=Login(None, "pw"))),
        ("redis://u:p%40%2Fw@h", Address(kind="single", hosts=(("h", 6379),), login=Login("u", "p@/w"))),
        ("redis://h?username=u&password=p%26w", Address(kind="single", hosts=(("h", 6379),), login=Login("u", "p&w"))),
        ("redis://[::1]:7/0", Address(kind="single", hosts=(("::1", 7),))),
        ("rediss://h", Address(kind="single", hosts=(("h", 6379),), tls={})),
        ("unix:///run/r.sock?db=2", Address(kind="unix", path="/run/r.sock", db=2)),
        ("unix://u:pw@/run/my%20r.sock", Address(kind="unix", path="/run/my r.sock", login=Login("u", "pw"))),
        ("redis+cluster://u:pw@a:1,b:2", Address(kind="cluster", hosts=(("a", 1), ("b", 2)), login=Login("u", "pw"))),
        ("redis+cluster://a/0", Address(kind="cluster", hosts=(("a", 6379),))),
        ("redis+cluster://a?tls=true", Address(kind="cluster", hosts=(("a", 6379),), tls={})),
        ("redis+sentinel://a,b:2/mine", Address(kind="sentinel", hosts=(("a", 26379), ("b", 2)), master="mine")),
        (
            "redis+sentinel://u:pw@a/mine/4?sentinel_username=s&sentinel_password=t",
            Address(kind="sentinel", hosts=(("a", 26379),), master="mine", db=4, login=Login("u", "pw"), sentinel_login=Login("s", "t")),
        ),
    ],
)
def test_a_url_says_where_the_server_is_and_who_we_are_there(url: str, expected: Address) -> None:
    assert read_address(url) == expected


def test_tls_options_are_what_the_driver_takes(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    url = f"rediss://h?ssl_ca_certs={file}&ssl_ca_path={tmp_path}&ssl_certfile={file}&ssl_keyfile={file}&ssl_password=k"
    options = "&ssl_cert_reqs=optional&ssl_check_hostname=false&ssl_min_version=1.3&ssl_ciphers=HIGH"
    address = read_address(url + options)
    assert address.tls == {
        "ssl_ca_certs": str(file),
        "ssl_ca_path": str(tmp_path),
        "ssl_certfile": str(file),
        "ssl_keyfile": str(file),
        "ssl_password": "k",
        "ssl_cert_reqs": "optional",
        "ssl_check_hostname": False,
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
        "ssl_ciphers": "HIGH",
    }
    assert not Wire(address, "h", 6379, login=address.login, db=0).is_connected  # the driver knows each of them


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h", "must begin with redis://, rediss://, unix://, redis+sentinel://, redis+cluster://"),
        ("redis://h:port", "must name a host, as host:6379"),
        ("redis://h:0", "must name a host"),
        ("redis://h:99999", "must name a host"),
        ("redis://a,b", "must name a host"),
        ("redis://[::1", "percent-encoded"),
        ("redis://h/x", "the path must be the number of a database, as 0"),
        ("redis://h/-1", "the path must be the number of a database"),
        ("redis://h/1/2", "the path must be the number of a database"),
        ("redis://h/1?db=2", "gives a database twice"),
        ("redis://h?db=x", "option 'db' must be the number of a database"),
        ("redis://h?db", "joined by &"),
        ("redis://h?db=1&db=2", "option 'db' is given twice"),
        ("redis://h#1", "percent-encoded"),
        ("redis://u@h", "a user name without a password"),
        ("redis://:a@h?password=b", "gives a password twice"),
        ("redis://h?ssl_ca_certs=x", "TLS is rediss://"),
        ("rediss://h?ssl_ca_certs=/no/such/file", "option 'ssl_ca_certs' names no file"),
        ("rediss://h?ssl_ca_path=/no/such/folder", "option 'ssl_ca_path' names no folder"),
        ("rediss://h?ssl_cert_reqs=maybe", "must be none, optional or required"),
        ("rediss://h?ssl_check_hostname=perhaps", "must be true or false"),
        ("rediss://h?ssl_min_version=1.0", "must be 1.2 or 1.3"),
        ("rediss://h?tls=true", "unknown option 'tls'"),
        ("unix://", "must name a socket"),
        ("unix://run/redis.sock", "three slashes"),
        ("redis+sentinel://a:1", "must name the master"),
        ("redis+sentinel://a:1,/mine", "must name a host"),
        ("redis+sentinel://a/mine/x", "the path must be the number of a database"),
        ("redis+sentinel://a/mine?ssl_cert_reqs=none", "ssl_cert_reqs: only with tls=true"),
        ("redis+cluster://", "must name a host"),
        ("redis+cluster://a/1", "one database only"),
        ("redis+cluster://a?db=1", "unknown option 'db'"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_and_what_is_allowed(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_address(url)
    assert any(problem in one for one in caught.value.problems), caught.value.problems
    assert all(one.startswith("broker.url = ") for one in caught.value.problems)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_address("redis://h/x?foo=1&db=y&bar=2")
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    "option",
    ["socket_timeout=9999", "retry_on_timeout=1", "connection_class=os.system", "redis_connect_func=x", "parser_class=y", "protocol=3", "host=evil"],
)
@pytest.mark.parametrize("scheme", ["redis://h/0", "rediss://h/0", "unix:///r", "redis+sentinel://h/m", "redis+cluster://h"])
def test_no_option_of_the_driver_can_be_set_that_is_not_listed(scheme: str, option: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown option '{option.partition('=')[0]}'; allowed for"):
        read_address(f"{scheme}?{option}")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@h:port/x?db=y",
        f"redis://u:{SECRET}/@h",
        f"redis://u:?{SECRET}@h",
        f"redis://u:#{SECRET}@h",
        f"redis://u:{SECRET}#@h",
        f"redis://u:{SECRET}?{SECRET}@h",
        f"redis://h?password={SECRET}&x=1",
        f"redis+sentinel://h/m?sentinel_password={SECRET}&sentinel_password={SECRET}",
        f"rediss://h?ssl_password={SECRET}&foo=1",
        f"http://u:{SECRET}@h",
    ],
)
def test_no_error_shows_a_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_address(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://u:{SECRET}@h", "redis://h:6379/0"),
        (f"rediss://u:{SECRET}@[::1]/2", "rediss://[::1]:6379/2"),
        (f"unix://u:{SECRET}@/run/r.sock?db=3", "unix:///run/r.sock?db=3"),
        (f"unix:///run/r.sock?password={SECRET}", "unix:///run/r.sock"),
        (f"redis+sentinel://u:{SECRET}@a,b:2/mine/1?sentinel_password={SECRET}", "redis+sentinel://a:26379,b:2/mine/1"),
        (f"redis+cluster://u:{SECRET}@a:1,b:2?tls=true&ssl_password={SECRET}", "redis+cluster://a:1,b:2"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    address = read_address(url)
    assert address.describe() == shown
    assert SECRET not in repr(address)


@given(username=st.text(min_size=1).filter(lambda text: text.strip()), password=st.text(min_size=1))
def test_any_user_name_and_password_get_through_when_they_are_encoded(username: str, password: str) -> None:
    url = f"redis://{quote(username, safe='')}:{quote(password, safe='')}@h/1"
    assert read_address(url) == Address(kind="single", hosts=(("h", 6379),), db=1, login=Login(username, password))


@given(st.text(), st.sampled_from(sorted(SCHEMES)))
def test_whatever_follows_the_scheme_is_read_or_refused(text: str, scheme: str) -> None:
    try:
        address = read_address(f"{scheme}://{text}")
    except ConfigError:
        return
    assert scheme_of(address.describe()) == scheme or (scheme, address.kind) == ("rediss", "single")


def test_the_plugin_takes_every_scheme_and_its_default_can_be_read() -> None:
    (plugin,) = jobqueue_brokers()
    examples: dict[str, Any] = {"unix": "unix:///r", "redis+sentinel": "redis+sentinel://h/m"}
    assert [read_address(examples.get(one, f"{one}://h")).kind for one in plugin.schemes] == list(SCHEMES.values())
    assert read_address(plugin.default_url).describe() == plugin.default_url
