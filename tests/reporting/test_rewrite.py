import os
import threading

import pytest

from autointerp.errors import RunStoreError
from autointerp.reporting.json_file import report_json
from autointerp.reporting.rewrite import rewrite_report


@pytest.fixture
def run(realistic, tmp_path):
    (tmp_path / "report.json").write_text(report_json(realistic), encoding="utf-8")
    return tmp_path


def test_a_report_rewritten_over_itself_is_the_same(run, realistic):
    assert rewrite_report(run, form="json") == run / "report.json"
    assert (run / "report.json").read_text(encoding="utf-8") == report_json(realistic)


@pytest.mark.parametrize("form", ["json", "md", "csv", "html"])
def test_a_write_that_fails_leaves_the_old_file_whole(run, form, monkeypatch):
    target = run / f"report.{form}"
    before = target.read_bytes() if form == "json" else b"old"
    target.write_bytes(before)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunStoreError, match="No space left"):
        rewrite_report(run, form=form)
    assert target.read_bytes() == before
    assert not list(run.glob(".*.tmp"))


def test_a_link_stays_a_link(run):
    (run / "real.md").touch()
    (run / "link.md").symlink_to(run / "real.md")
    rewrite_report(run, form="md", out=run / "link.md")
    assert (run / "link.md").is_symlink()
    assert (run / "real.md").stat().st_size > 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_written_into_not_replaced(run):
    pipe = run / "pipe"
    os.mkfifo(pipe)
    content = []
    reader = threading.Thread(target=lambda: content.append(pipe.read_bytes()))
    reader.start()
    rewrite_report(run, form="csv", out=pipe)
    reader.join(timeout=10)
    assert content[0].count(b"\n") > 10
    assert pipe.is_fifo()


def test_a_folder_as_target_is_refused(run):
    with pytest.raises(RunStoreError, match="cannot be written"):
        rewrite_report(run, form="md", out=run)
