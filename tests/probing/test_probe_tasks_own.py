import json
import sys

import pytest
from transformers import AutoTokenizer

from autointerp.demo import demo_subject
from autointerp.errors import SuiteError
from autointerp.probing import own_tasks as own_module
from autointerp.probing import source_files, source_tasks
from autointerp.probing.catalogue import load_probe_data
from autointerp.sampling.contexts import ContextOptions

TOML = """
question = "Is it about cats?"
label_rule = "by hand"
source = "invented"
licence = "CC0-1.0"
split_rule = "by the hash of the text"
pooling = "{pooling}"
"""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo_subject())


def write(folder, rows, *, pooling="last", toml=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.toml").write_text(TOML.format(pooling=pooling) + toml, encoding="utf-8")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def rows(count=120, **further):
    return [
        {"text": f"note {number}: the {'cat' if number % 2 else 'dog'} sat", "label": number % 2} | further
        for number in range(count)
    ]


def load(tokenizer, folder, *names, examples=60, context_length=16, seed=0):
    return load_probe_data(
        names,
        tokenizer=tokenizer,
        options=ContextOptions(context_length=context_length),
        examples=examples,
        seed=seed,
        folder=folder,
    )


def refused(tokenizer, folder, given, *parts, **options):
    write(folder / "mine", given, **options)
    with pytest.raises(SuiteError) as caught:
        load(tokenizer, folder, "mine")
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def test_a_folder_is_a_task(tokenizer, tmp_path):
    write(tmp_path / "cats", rows())
    data = load(tokenizer, tmp_path, "cats")
    (one,) = data.tasks
    assert one.task.name == "own/cats"
    assert (one.task.question, one.task.licence) == ("Is it about cats?", "CC0-1.0")
    assert len(one.label) == 60 and one.label.sum() == 30
    assert int(one.is_test.sum()) == 24
    for text, label in zip(one.text, one.label, strict=True):
        assert ("cat" in tokenizer.decode(data.texts[text].tokens)) == label
    assert one.task.single_token_auroc == 1.0 and one.task.is_lexical


def test_a_folder_of_folders_is_a_set_and_paths_are_relative_to_the_folder(tokenizer, tmp_path):
    write(tmp_path / "set" / "b", rows())
    write(tmp_path / "set" / "a", rows())
    data = load(tokenizer, tmp_path, "set", str(tmp_path / "set" / "a"))
    assert [one.task.name for one in data.tasks] == ["set/a", "set/b", "own/a"]
    assert len(data.texts) < sum(len(one.text) for one in data.tasks)  # shared


def test_two_folders_of_one_name_are_refused(tokenizer, tmp_path):
    write(tmp_path / "x" / "cats", rows())
    write(tmp_path / "y" / "cats", rows())
    with pytest.raises(SuiteError, match="two tasks are called 'own/cats'"):
        load(tokenizer, tmp_path, "x/cats", "y/cats")


def test_the_given_split_is_kept(tokenizer, tmp_path):
    write(
        tmp_path / "cats",
        [row | {"split": "test" if index % 3 == 0 else "train"} for index, row in enumerate(rows(200))],
    )
    data = load(tokenizer, tmp_path, "cats")
    (one,) = data.tasks
    for text, is_test in zip(one.text, one.is_test, strict=True):
        number = int(tokenizer.decode(data.texts[text].tokens).split("note ")[1].split(":")[0])
        assert is_test == (number % 3 == 0)


def test_a_group_lies_on_one_side(tokenizer, tmp_path):
    write(tmp_path / "cats", [row | {"group": index // 8} for index, row in enumerate(rows(400))])
    (one,) = load(tokenizer, tmp_path, "cats").tasks
    data = load(tokenizer, tmp_path, "cats")
    sides = {}
    for text, is_test in zip(one.text, one.is_test, strict=True):
        assert sides.setdefault(data.texts[text].group, is_test) == is_test


def test_a_marked_span_ends_the_text_at_its_last_token(tokenizer, tmp_path):
    given = []
    for number in range(120):
        text = f"été {number}: say ünder_score{number} and {'x' * 200} more"
        start = text.index("ünder")
        given.append({"text": text, "label": number % 2, "start": start, "end": text.index(" and")})
    write(tmp_path / "marks", given, pooling="marked")
    data = load(tokenizer, tmp_path, "marks", context_length=64)
    (one,) = data.tasks
    for text, position in zip(one.text, one.position, strict=True):
        tokens = data.texts[text].tokens
        assert position == len(tokens) - 1
        seen = tokenizer.decode(tokens[1:])
        assert seen.split("ünder_score")[1].isdigit() and seen.startswith("été")


def test_a_long_text_keeps_its_end_or_its_beginning_as_the_pooling_wants(tokenizer, tmp_path):
    given = [
        {"text": f"begin{number} " + "word " * 400 + f"end{number}", "label": number % 2}
        for number in range(120)
    ]
    kept = {}
    for pooling in ("last", "mean"):
        write(tmp_path / pooling, given, pooling=pooling)
        data = load(tokenizer, tmp_path, pooling, context_length=32)
        assert all(len(text.tokens) == 32 for text in data.texts)
        kept[pooling] = [tokenizer.decode(text.tokens[1:]) for text in data.texts]
    assert all("end" in text and "begin" not in text for text in kept["last"])
    assert all("begin" in text and "end" not in text for text in kept["mean"])


def test_repeated_examples_count_once(tokenizer, tmp_path):
    write(tmp_path / "cats", rows() + rows())
    (one,) = load(tokenizer, tmp_path, "cats").tasks
    assert any("120 of them repeated" in note for note in one.task.notes)
    assert len({*one.text.tolist()}) == len(one.text)


def test_too_few_examples_of_a_label_are_told(tokenizer, tmp_path):
    write(tmp_path / "cats", [row for row in rows(300) if not row["label"]] + rows(8))
    data = load(tokenizer, tmp_path, "cats")
    assert not data.tasks
    assert "too few examples here: 4 of a label" in data.skipped[0].reason


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{", ["examples.jsonl:3", "is no JSON", "one JSON object a line"]),
        ('{"label": 1}', ["examples.jsonl:3", "text", "Field required"]),
        ('{"text": "", "label": 1}', ["examples.jsonl:3", "text"]),
        ('{"text": "a", "label": 2}', ["examples.jsonl:3", "label"]),
        ('{"text": "a", "label": "1"}', ["examples.jsonl:3", "label"]),
        ('{"text": "a", "label": 1, "lable": 1}', ["examples.jsonl:3", "lable"]),
        ('{"text": "a", "label": 1, "split": "dev"}', ["examples.jsonl:3", "split", "train"]),
        ('{"text": "a", "label": 1, "split": "test"}', ["examples.jsonl:3", "others none"]),
        ('{"text": "a", "label": 1, "start": 0, "end": 1}', ["examples.jsonl:3", "span is not used"]),
        ('{"text": "a", "label": 1, "start": 0}', ["examples.jsonl:3", "belong together"]),
        ('["a", 1]', ["examples.jsonl:3"]),
        ("[" * 100_000, ["examples.jsonl:3", "is no JSON"]),
        (
            '{"text": "note 0: the dog sat", "label": 1, "split": "test"}',
            ["same group (or text) as in line 1"],
        ),
    ],
)
def test_a_bad_line_is_one_clear_line(tokenizer, tmp_path, line, parts):
    refused(tokenizer, tmp_path, [*rows(2), line, *rows(2)], *parts)


def test_a_span_outside_the_text_is_refused(tokenizer, tmp_path):
    row = {"text": "abc", "label": 1, "start": 2, "end": 4}
    refused(
        tokenizer, tmp_path, [row], "examples.jsonl:1", "does not lie in", "3 characters", pooling="marked"
    )


def test_a_marked_task_needs_spans(tokenizer, tmp_path):
    refused(tokenizer, tmp_path, rows(2), "examples.jsonl:1", "(start, end) is missing", pooling="marked")


def test_no_examples_are_refused(tokenizer, tmp_path):
    refused(tokenizer, tmp_path, [""], "examples.jsonl", "no example")
    (tmp_path / "mine" / "examples.jsonl").unlink()
    with pytest.raises(SuiteError, match=r"cannot be read .*put the examples into examples.jsonl"):
        load(tokenizer, tmp_path, "mine")


def test_hostile_sizes_are_refused(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(own_module, "_LARGEST_LINE_BYTES", 200)
    refused(
        tokenizer, tmp_path, [*rows(2), {"text": "x" * 300, "label": 1}], "examples.jsonl:3", "longer than"
    )
    monkeypatch.setattr(own_module, "_MOST_LINES", 5)
    refused(tokenizer, tmp_path, rows(9), "examples.jsonl:6", "more than a million lines")
    monkeypatch.setattr(own_module, "_LARGEST_FILE_BYTES", 50)
    refused(tokenizer, tmp_path, rows(9), "examples.jsonl", "larger than")


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("questoin = 'x'", ["task.toml", "questoin", "unknown key", "question"]),
        ("x = [", ["task.toml", "is no TOML"]),
        ("[marks]\nkinds = ['name']\npositive = 'caled'", ["marks", "unknown feature 'caled'", "called"]),
        ("[marks]\nkinds = ['name']\npositive = 'called'", ['with [marks], pooling is "marked"']),
        ("[contexts]\nholds = 'called'\nfile_is = 'is_test'", ["either `holds` or `file_is`"]),
        ("[label]\nrule = 'source'", ["[[rows]] and [label] belong together"]),
        ("[[rows]]\ndataset = 'a'\n[label]\nrule = 'equals'", ["needs 'column'"]),
    ],
)
def test_a_bad_task_file_is_one_clear_line(tokenizer, tmp_path, toml, parts):
    refused(tokenizer, tmp_path, rows(2), *parts, toml=toml)


def test_a_task_file_without_a_licence_is_refused(tokenizer, tmp_path):
    folder = write(tmp_path / "mine", rows(2))
    text = (folder / "task.toml").read_text(encoding="utf-8")
    (folder / "task.toml").write_text(text.replace('licence = "CC0-1.0"', ""), encoding="utf-8")
    with pytest.raises(SuiteError, match="licence: Field required"):
        load(tokenizer, tmp_path, "mine")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("stdlb", ["'stdlb'", "stdlib"]),
        ("stdlib/in_docstrin", ["stdlib/in_docstring"]),
        ("in_comment", ["stdlib/in_comment"]),
        ("gao61/scq", ["gao61/sciq"]),
        ("./nowhere", ["the sets are gao61, stdlib"]),
        ("", ["no probe task"]),
        ("a\0b", ["cannot be used"]),
        ("~nobody-of-this-name/x", ["cannot be used"]),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(tokenizer, tmp_path, name, parts):
    with pytest.raises(SuiteError) as caught:
        load(tokenizer, tmp_path, name)
    for part in parts:
        assert part in str(caught.value)


def test_a_folder_without_a_task_is_refused(tokenizer, tmp_path):
    with pytest.raises(SuiteError, match=r"no task.toml"):
        load(tokenizer, tmp_path, str(tmp_path))


def test_a_task_of_ones_own_may_mark_python_source_or_name_rows(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "_CHARACTERS", 100_000)
    monkeypatch.setattr(source_files, "_TEST_CHARACTERS", 10_000)
    monkeypatch.setattr(source_files, "_LARGEST_CHARACTERS", 20_000)
    monkeypatch.setattr(source_tasks, "_POOL_TOKENS", 16_384)
    monkeypatch.setitem(sys.modules, "datasets", None)
    write(tmp_path / "hub", rows(2), toml="[[rows]]\ndataset = 'who/what'\n[label]\nrule = 'source'")
    (tmp_path / "calls").mkdir()
    marks = "[marks]\nkinds = ['name']\npositive = 'called'\n"
    (tmp_path / "calls" / "task.toml").write_text(TOML.format(pooling="marked") + marks, encoding="utf-8")
    data = load(tokenizer, tmp_path, "hub", "calls", context_length=64)
    assert data.skipped[0].task.name == "own/hub"
    assert "`datasets` is not installed" in data.skipped[0].reason
    assert [one.task.name for one in data.tasks] == ["own/calls"]
