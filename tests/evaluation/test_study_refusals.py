"""What no study can do is refused before anything is computed."""

from pathlib import Path

import pytest

from autointerp.config import suite_from_mapping
from autointerp.errors import SuiteError
from autointerp.evaluation.studies.refusals import refuse_unusable


class Letters:
    """A tokenizer of which every letter is a token."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]


def suite(families, **sections):
    given = {"name": "tried", "subject": {"model": "none"}, "checkpoints": [{"path": "none"}]}
    return suite_from_mapping(
        given | {"metrics": {"families": families}} | sections, folder=Path(), where="test"
    )


@pytest.mark.parametrize("filler", ["ab", ""])
def test_a_filler_is_one_token(filler):
    asked = {"graphs": {"filler": filler}}
    with pytest.raises(SuiteError, match=f"graphs.filler {filler!r} is {len(filler)} tokens"):
        refuse_unusable(suite(["reconstruction", "n2g"], **asked), Letters())
    refuse_unusable(suite(["reconstruction"], **asked), Letters())  # nobody asks for it
    refuse_unusable(suite(["n2g"], graphs={"filler": "a"}), Letters())


def test_a_misspelt_task_is_refused_with_the_nearest():
    asked = {"probes": {"tasks": ["stdlib/in_docstrin"]}}
    with pytest.raises(SuiteError, match="did you mean stdlib/in_docstring"):
        refuse_unusable(suite(["probe"], **asked), Letters())
    refuse_unusable(suite(["n2g"], **asked), Letters())


def test_a_task_with_a_bad_file_is_refused(tmp_path):
    (tmp_path / "task.toml").write_text("question = 3")
    with pytest.raises(SuiteError, match=r"task\.toml"):
        refuse_unusable(suite(["probe"], probes={"tasks": [str(tmp_path)]}), Letters())
