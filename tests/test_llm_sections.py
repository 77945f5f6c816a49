"""Sections [llm] and [explanations] of a suite: nearest names, no secrets, prices, roles."""

import tomllib

import pytest

from autointerp.config import load_suite, suite_from_mapping, suite_toml
from autointerp.errors import SuiteError

MINIMAL = 'name = "x"\n[subject]\nmodel = "some/model"\n'
SECRET = "hunter2-sk-secret"


def suite(tmp_path, text, *, overrides=()):
    path = tmp_path / "suite.toml"
    path.write_text(MINIMAL + text, encoding="utf-8")
    return load_suite(path, overrides=overrides)


def line(tmp_path, text, *, overrides=()):
    """Of the error that the suite is refused with."""
    with pytest.raises(SuiteError) as caught:
        suite(tmp_path, text, overrides=overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[llm]\nmodle = "m"\n', "unknown key `llm.modle`, nearest: model"),
        ('[llm]\nbase-url = "http://h/v1"\n', "unknown key `llm.base-url`, nearest: base_url"),
        ("[llm.judge]\ntemprature = 0.5\n", "unknown key `llm.judge.temprature`, nearest: temperature"),
        ("[llm.judge]\nbudget_usd = 1\n", "unknown key `llm.judge.budget_usd`"),
        ("[llm.prices.m]\ninputs = 1\noutput = 2\n", "unknown key `llm.prices.m.inputs`, nearest: input"),
        ("[llm.prices.m]\ninput = 1\n", "`llm.prices.m.output`: Field required"),
        ("[llm.prices.m]\ninput = -1\noutput = 2\n", "`llm.prices.m.input`"),
        ("[llm.prices.m]\ninput = inf\noutput = 2\n", "`llm.prices.m.input`"),
        ("[llm]\nbudget_usd = 0\n", "`llm.budget_usd`"),
        ("[llm]\nbudget_tokens = 1.5\n", "`llm.budget_tokens`"),
        ("[llm]\ntemperature = 3\n", "`llm.temperature`"),
        ("[llm]\nattempts = 0\n", "`llm.attempts`"),
        ("[llm]\ntimeout_seconds = nan\n", "`llm.timeout_seconds`"),
        ('[explanations]\nexplainer = ["highlighted"]\n', "nearest: explainers"),
        ('[explanations]\nexplainers = ["highlight"]\n', "`explanations.explainers.0`"),
        ('[explanations]\nmethods = ["detect"]\n', "`explanations.methods.0`"),
        ('[explanations]\nsimulation = "all"\n', "`explanations.simulation`"),
        ('[explanations]\nnulls = ["random"]\n', "`explanations.nulls.0`"),
        ("[explanations]\nbest_of = 0\n", "`explanations.best_of`"),
        ("[explanations]\nlatent_count = 0\n", "`explanations.latent_count`"),
        ("[explanations]\npassage_tokens = 3\n", "`explanations.passage_tokens`"),
        ('[explanations]\ncalibration = "platt"\n', "`explanations.calibration`"),
    ],
    ids=lambda value: value[-40:],
)
def test_what_is_wrong_is_one_line_that_names_it(tmp_path, text, says):
    assert says in line(tmp_path, text)


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{SECRET}@localhost:8000/v1",
        f"https://{SECRET}@api.example/v1",
        f"https://api.example/v1?api_key={SECRET}",
        f"https://api.example/v1#{SECRET}",
        f"ftp://{SECRET}.example/v1",
        f"{SECRET}",
        f"http://[{SECRET}/v1",
    ],
)
@pytest.mark.parametrize("where", ["llm", "llm.judge"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(tmp_path, address, where):
    said = line(tmp_path, f'[{where}]\nbase_url = "{address}"\n')
    assert f"{where}.base_url" in said
    assert SECRET not in said
    said = line(tmp_path, "", overrides=[f"{where}.base_url={address}"])
    assert SECRET not in said


@pytest.mark.parametrize("address", ["http://localhost:8000/v1", "https://api.example/a/v1", "local"])
def test_an_address_of_host_and_path_is_taken(tmp_path, address):
    assert suite(tmp_path, f'[llm]\nbase_url = "{address}"\n').llm.base_url == address


def test_prices_are_by_model_and_survive_the_resolved_suite(tmp_path):
    text = (
        '[llm.prices]\n"a/b.c:free" = { input = 0.15, cached_input = 0.075, output = 0.6 }\n'
        '"gpt-4.1" = { input = 1, output = 2 }\n"\\"quoted\\"\\n" = { input = 0, output = 0 }\n'
        '[llm.judge]\nmodel = "gpt-4.1"\n'
    )
    found = suite(tmp_path, text)
    assert found.llm.prices["a/b.c:free"].cached_input == 0.075
    assert found.llm.prices["gpt-4.1"].cached_input is None
    again = suite_from_mapping(tomllib.loads(suite_toml(found)), folder=tmp_path)
    assert again.llm == found.llm


def test_a_role_differs_in_what_it_says_and_in_nothing_else(tmp_path):
    text = (
        '[llm]\nmodel = "small"\ntemperature = 0.3\nseed = 5\nbase_url = "http://a/v1"\n'
        'judge = { model = "large", temperature = 0.0 }\n'
        'simulator = { base_url = "local", api_key_env = "OTHER" }\n'
    )
    llm = suite(tmp_path, text).llm
    common = {"model": "small", "temperature": 0.3, "seed": 5, "base_url": "http://a/v1",
              "api_key_env": "OPENAI_API_KEY"}  # fmt: skip
    assert llm.role("explainer") == common
    assert llm.role("judge") == common | {"model": "large", "temperature": 0.0}
    assert llm.role("simulator") == common | {"base_url": "local", "api_key_env": "OTHER"}


def test_settings_of_the_command_line_reach_roles_and_lists(tmp_path):
    overrides = ["llm.judge.model=big", 'explanations.methods=["detection"]', "explanations.enabled=false"]
    found = suite(tmp_path, '[llm]\nmodel = "m"\n', overrides=overrides)
    assert found.llm.role("judge")["model"] == "big"
    assert found.explanations.methods == ("detection",)
    assert found.explanations.enabled is False


def test_without_the_sections_nothing_is_asked(tmp_path):
    found = suite(tmp_path, "")
    assert found.llm.model is None
    assert (found.explanations.explainers, found.explanations.methods) == (None, None)
    assert found.explanations.nulls == ("borrowed", "empty")


def test_the_schema_explains_all_that_its_name_does_not():
    from autointerp.config import ExplanationSection, LlmSection

    plain = {"enabled", "temperature", "seed", "timeout_seconds", "requests_per_minute", "tokens_per_minute"}
    plain |= {"explainer", "simulator", "judge", "budget_tokens"}
    for section in (LlmSection, ExplanationSection):
        fields = section.model_json_schema()["properties"]
        silent = [name for name, field in fields.items() if not field.get("description")]
        assert set(silent) <= plain
