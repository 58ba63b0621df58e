"""``mqtt://…`` → address: what is taken, and what the refusals say."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fl_shared.errors import UserError
from fl_shared.mqtt.address import BrokerAddress


def test_a_zone_is_for_this_machine_only() -> None:
    assert BrokerAddress.parse("mqtts://[fe80::1%eth0]").server_name == "fe80::1"
    assert BrokerAddress.parse("mqtts://broker.example").server_name == "broker.example"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://localhost", BrokerAddress("localhost", 1883)),
        ("MQTT://Broker.Example:1884/", BrokerAddress("broker.example", 1884)),
        ("mqtt://edge-7@10.0.0.1:8883", BrokerAddress("10.0.0.1", 8883, "edge-7")),
        ("mqtt://[::1]:1884", BrokerAddress("::1", 1884)),
        ("mqtt://a%40b@[fe80::1]", BrokerAddress("fe80::1", 1883, "a@b")),
        (" mqtt://localhost:65535 ", BrokerAddress("localhost", 65535)),
        ("mqtts://broker.example", BrokerAddress("broker.example", 8883, scheme="mqtts")),
        ("mqtts://edge-7@[::1]:1", BrokerAddress("::1", 1, "edge-7", "mqtts")),
        ("ws://broker.example", BrokerAddress("broker.example", 80, scheme="ws", path="/mqtt")),
        ("WSS://u@h/", BrokerAddress("h", 443, "u", "wss", "/")),
        ("mqtts://[fe80::1%eth0]:8884", BrokerAddress("fe80::1%eth0", 8884, scheme="mqtts")),
        ("mqtt://[fe80::1%25en1]", BrokerAddress("fe80::1%en1", 1883)),
        ("wss://h/mqtt?token=a%20b", BrokerAddress("h", 443, None, "wss", "/mqtt?token=a%20b")),
        ("ws://u@h/mqtt?token=a@b", BrokerAddress("h", 80, "u", "ws", "/mqtt?token=a%40b")),
        ("ws://h?token=1", BrokerAddress("h", 80, None, "ws", "/mqtt?token=1")),
        ("wss://[::1]:8443/a/b%20c", BrokerAddress("::1", 8443, None, "wss", "/a/b%20c")),
    ],
)
def test_parses(url: str, expected: BrokerAddress) -> None:
    assert BrokerAddress.parse(url) == expected
    assert BrokerAddress.parse(str(expected)) == expected
    assert expected.is_encrypted == (expected.scheme in ("mqtts", "wss"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:1883", "no scheme"),
        ("", "no scheme"),
        ("ssl://h", "scheme 'ssl' is unknown; write mqtts://"),
        ("https://h/mqtt", "scheme 'https' is unknown; write wss://"),
        ("gopher://h", "scheme 'gopher' is unknown; expected mqtt://, mqtts://"),
        ("mqtts://h/topic", "nothing may follow the port"),
        ("ws://h/mqtt#part", "nothing may follow the port and path"),
        ("mqtt://h%eth0", "not a host name"),
        ("ws://h/a b", "the path '/a b'"),
        ("wss://h/" + "a" * 1024, "at most 1024 characters"),
        ("wss://h/\N{LATIN SMALL LETTER E WITH ACUTE}", "expected a path like /mqtt"),
        ("mqtt://", "not a host name"),
        ("mqtt://:1883", "not a host name"),
        ("mqtt://h:0", "port 0"),
        ("mqtt://[fe80::1%eth0]:0", "port 0"),
        ("ws://h:80/mqtt?token=a@b", "a password in the URL"),
        ("mqtt://h:65536", "port from 1 to 65535"),
        ("mqtt://h:mqtt", "port from 1 to 65535"),
        ("mqtt://::1:1883", "brackets"),
        ("mqtt://[::1", "brackets"),
        ("mqtt://h:1/topic", "nothing may follow"),
        ("mqtt://h?x=1", "nothing may follow"),
        ("mqtt://@h", "user before @ is empty"),
        ("mqtt://a b", "not a host name"),
        ("mqtt://u:secret@h", "FL_PASSWORD or with --password-file"),
    ],
)
def test_refuses_and_says_why(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        BrokerAddress.parse(url)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "form",
    ["mqtt://u:{}@h", "mqtts://u:{}@h", "wss://u:{}@h/mqtt", "u:{}@h:1883", "mqtt://u:{}@", "x://u:{}@h:p"],
)
@pytest.mark.parametrize("password", ["hunter22", "a@hunter22", "hunter22://x", "hunter22:/@?#"])
def test_no_message_repeats_a_password(form: str, password: str) -> None:
    with pytest.raises(UserError) as caught:
        BrokerAddress.parse(form.format(password))
    assert "hunter22" not in str(caught.value)


@given(st.text() | st.text().map("mqtt://{}".format) | st.text().map("wss://h/{}".format))
@example("mqtt://[")
@example("mqtt://\N{FULLWIDTH NUMBER SIGN}")
@example("mqtt://h:\N{SUPERSCRIPT TWO}")
@example("mqtt://[v1.a]")
def test_any_text_is_an_address_or_a_users_mistake(url: str) -> None:
    try:
        address = BrokerAddress.parse(url)
    except UserError:
        return
    assert 1 <= address.port <= 65535
    assert address.host
    assert address.path.startswith("/") == address.is_websocket
    assert BrokerAddress.parse(str(address)) == address
