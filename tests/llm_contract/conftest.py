"""Endpoints to hold to the contract: three on this machine, and the user's own if one is named.

    AUTOINTERP_TEST_API_KEY=... pytest tests/llm_contract --endpoint https://host/v1 --endpoint-model NAME

The variables AUTOINTERP_TEST_ENDPOINT and AUTOINTERP_TEST_MODEL do the same. It takes about 60 short calls.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autointerp.explanation_sections import LlmSection
from autointerp.testing.tiny_chat_server.model_backend import ModelBackend
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend
from autointerp.testing.tiny_chat_server.restricted_backend import RestrictedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

NO_LOGPROBS = ("logprobs", "top_logprobs", "echo", "response_format", "seed", "n")
BACKENDS = {
    "tiny model": lambda: ModelBackend(reply_tokens=12),
    "oracle": OracleBackend,
    "bare chat": lambda: RestrictedBackend(
        OracleBackend(model="bare"), ignores=NO_LOGPROBS, refuses=["max_tokens"], has_not=["/v1/completions"]
    ),
}


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and where answers are kept during the tests."""

    name: str
    base_url: str
    model: str
    folder: Path

    @property
    def section(self) -> LlmSection:
        return LlmSection(
            base_url=self.base_url, model=self.model, api_key_env="AUTOINTERP_TEST_API_KEY", concurrency=4
        )

    @property
    def replies(self) -> Path:
        return self.folder / "llm_replies.sqlite"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--endpoint", default=None, help="address of an OpenAI-compatible server to test")
    parser.addoption("--endpoint-model", default=None, help="model to ask there")


def users_endpoint(config: pytest.Config) -> tuple[str, str] | None:
    """Address and model, from the options or from the environment."""
    url = config.getoption("endpoint", None) or os.environ.get("AUTOINTERP_TEST_ENDPOINT")
    model = config.getoption("endpoint_model", None) or os.environ.get("AUTOINTERP_TEST_MODEL")
    if url and not model:
        raise pytest.UsageError("name a model: --endpoint-model or AUTOINTERP_TEST_MODEL")
    return (url, model) if url and model else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "endpoint" in metafunc.fixturenames:
        names = [*BACKENDS, *(["the user's"] if users_endpoint(metafunc.config) else [])]
        metafunc.parametrize("endpoint", names, indirect=True, scope="module")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest) -> None:
    """As for all tests, unless the user named an endpoint, which may be anywhere."""
    if users_endpoint(request.config) is None:
        request.getfixturevalue("no_network")


@pytest.fixture(scope="module")
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder, name = tmp_path_factory.mktemp("endpoint"), request.param
    own = users_endpoint(request.config)
    if name not in BACKENDS:
        assert own is not None
        yield Endpoint(name, *own, folder)
        return
    backend = BACKENDS[name]()
    with tiny_chat_server(backend) as server:
        yield Endpoint(name, server.base_url, backend.model, folder)
