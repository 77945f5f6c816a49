"""The two example reports, made once for the folder."""

import sys
from pathlib import Path

import pytest

from autointerp.records import EvaluationReport

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported by path, so their helpers need one

import report_examples


@pytest.fixture(scope="session")
def realistic() -> EvaluationReport:
    return report_examples.realistic_report()


@pytest.fixture(scope="session")
def hostile() -> EvaluationReport:
    return report_examples.hostile_report()
