import subprocess
import sys

import pytest

import autointerp
from autointerp import errors


def test_public_names_are_sorted_and_there():
    assert list(autointerp.__all__) == sorted(autointerp.__all__)
    for name in autointerp.__all__:
        assert getattr(autointerp, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        autointerp.nothing_like_it  # noqa: B018


@pytest.mark.parametrize(
    "module", ["autointerp", "autointerp.cli", "autointerp.config", "autointerp.estimates"]
)
def test_importing_does_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_error_stands_in_the_tree_that_the_module_draws():
    for name in errors.__all__:
        assert name in errors.__doc__


def test_bad_input_is_one_line_whatever_its_parts_hold():
    error = errors.CheckpointError("bad\nthing", where="a\nb", remedy="do\r\nthis")
    assert str(error) == "a b: bad thing; do this"
    assert error.exit_code == 2
