"""A key is in no repr, no pickle, no address and no text."""

import pickle

import pytest

from autointerp.errors import EndpointError
from autointerp.llm.secrecy import Secret, endpoint_name, one_line, read_key

KEY = "my-very-own/key+42=="


def test_the_key_shows_itself_only_where_it_is_asked() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r}"
    assert secret.reveal() == KEY
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_texts_lose_the_key_before_they_are_cut() -> None:
    text = "x" * 290 + KEY
    line = one_line(text, secret=Secret(KEY), longest=300)
    assert KEY[:8] not in line
    assert len(line) <= 300
    assert one_line("a my-very-own%2Fkey%2B42%3D%3D b", secret=Secret(KEY)) == "a [secret] b"
    assert "sk-" not in one_line("key sk-abcdef123456 is bad", secret=Secret(""))


def test_short_keys_of_local_servers_do_not_eat_words() -> None:
    assert Secret("EMPTY").scrub_bytes(b"EMPTY text") == b"EMPTY text"


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_may_hold_is_refused_without_being_shown(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", value)
    with pytest.raises(EndpointError, match="A_KEY") as caught:
        read_key("A_KEY")
    assert value not in str(caught.value)


def test_an_unset_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    assert not read_key("A_KEY")
    monkeypatch.setenv("A_KEY", f" {KEY}\n")
    assert read_key("A_KEY").reveal() == KEY


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("HTTP://Host:80/v1/", "http://host:80/v1"),
        ("https://[::1]:8000/v1", "https://[::1]:8000/v1"),
        ("https://h/openai?api-version=2024-10", "https://h/openai?api-version=2024-10"),
    ],
)
def test_addresses_have_one_spelling(address: str, name: str) -> None:
    assert endpoint_name(address) == name


@pytest.mark.parametrize(
    "address",
    ["https://user:pw@h/v1", "https://user@h/v1", "https://h/v1?api_key=x", "https://h/v1?sig=x",
     "https://h/v1?subscription-key=x", "ftp://h/v1", "h/v1", "https:///v1", "https://h:99999/v1", "https://[x/v1"],
)  # fmt: skip
def test_addresses_with_credentials_and_no_addresses_are_refused_without_being_shown(address: str) -> None:
    with pytest.raises(EndpointError) as caught:
        endpoint_name(address)
    assert address not in str(caught.value)
