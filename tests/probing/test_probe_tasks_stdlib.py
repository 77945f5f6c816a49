import tomllib
from collections import Counter

import numpy as np
import pytest
from transformers import AutoTokenizer

from autointerp.bundled import bundled_folder
from autointerp.demo import demo_subject
from autointerp.errors import CorpusError
from autointerp.probing import source_files, source_tasks
from autointerp.probing.catalogue import catalogue_names, load_probe_data
from autointerp.probing.matching import PER_TEXT
from autointerp.probing.source_files import LibraryFiles
from autointerp.sampling.contexts import ContextOptions

OPTIONS = ContextOptions(context_length=64)


def load(tokenizer, tasks=("stdlib",), *, seed=0, options=OPTIONS, examples=60):
    return load_probe_data(tasks, tokenizer=tokenizer, options=options, examples=examples, seed=seed)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo_subject())


@pytest.fixture(scope="module")
def small():
    """Fewer modules and contexts than in a run, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, "_CHARACTERS", 150_000)
        patch.setattr(source_files, "_CHARACTERS_SOUGHT", 15_000)
        patch.setattr(source_files, "_TEST_CHARACTERS", 60_000)
        patch.setattr(source_files, "_LARGEST_CHARACTERS", 20_000)
        patch.setattr(source_tasks, "_POOL_TOKENS", 32_768)
        files = {}

        def once(sought):
            if "read" not in files:
                files["read"] = source_files.library_files(sought)
            return files["read"]

        patch.setattr(source_tasks, "library_files", once)
        yield


@pytest.fixture(scope="module")
def data(small, tokenizer):
    return load(tokenizer)


# ---- the catalogue ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue_names())
def test_a_task_of_the_catalogue_says_what_it_is(name):
    content = tomllib.loads((bundled_folder("probes") / name / "task.toml").read_text(encoding="utf-8"))
    for key in ("question", "label_rule", "source", "licence", "split_rule", "pooling"):
        assert content[key].strip(), key
    assert content["question"].endswith("?")
    assert content["choices"]
    if name.startswith("gao61/"):
        assert content["seen_in"] or content["unverified"]


def test_there_are_enough_tasks_on_source():
    assert sum(name.startswith("stdlib/") for name in catalogue_names()) >= 60


def test_most_tasks_have_examples_and_the_others_say_why_not(data):
    names = {one.task.name for one in data.tasks} | {one.task.name for one in data.skipped}
    assert names == {name for name in catalogue_names() if name.startswith("stdlib/")}
    assert len(data.tasks) >= 30
    assert all("too few examples" in one.reason for one in data.skipped)


def test_every_task_with_examples_has_a_baseline(data):
    for one in data.tasks:
        area = one.task.single_token_auroc
        assert area is not None and 0 <= area <= 1
        assert one.task.is_lexical == (area > 0.8)


# ---- the examples -----------------------------------------------------------------------------------


def test_labels_are_balanced_on_both_sides_and_each_text_gives_few(data):
    for one in data.tasks:
        assert len(one.label) <= 60
        for side in (True, False):
            on_side = one.label[one.is_test == side]
            assert 2 * on_side.sum() == len(on_side) > 0
        given = Counter(zip(one.text.tolist(), one.label.tolist(), strict=True))
        assert max(given.values()) <= (PER_TEXT if one.task.pooling == "marked" else 1)


def test_a_module_lies_on_one_side_in_all_tasks(data):
    sides = {}
    for one in data.tasks:
        for text, is_test in zip(one.text.tolist(), one.is_test.tolist(), strict=True):
            assert sides.setdefault(data.texts[text].group, is_test) == is_test
    assert set(sides.values()) == {True, False}


def test_the_marked_tokens_say_nothing_of_the_label(data):
    for one in data.tasks:
        if one.task.pooling != "marked":
            assert (one.position == -1).all()
            continue
        for side in (True, False):
            counts = {True: Counter(), False: Counter()}
            here = one.is_test == side
            for text, position, label in zip(
                one.text[here], one.position[here], one.label[here], strict=True
            ):
                counts[bool(label)][data.texts[text].tokens[position]] += 1
            assert counts[True] == counts[False], one.task.name


def marks(data, name, tokenizer):
    one = next(each for each in data.tasks if each.task.name == f"stdlib/{name}")
    for text, position, label in zip(one.text, one.position, one.label.tolist(), strict=True):
        tokens = data.texts[text].tokens
        yield tokenizer.decode(tokens[1 : position + 1]), tokenizer.decode(tokens[position + 1 :]), label


def test_what_follows_a_called_name_is_a_parenthesis(data, tokenizer):
    for before, after, label in marks(data, "name_called", tokenizer):
        assert before[-1].isidentifier() or before[-1].isdigit()
        if after:
            assert after.lstrip().startswith("(") >= label


def test_an_attribute_follows_a_dot(data, tokenizer):
    for before, _after, label in marks(data, "attribute_name", tokenizer):
        word = before[len(before.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")) :]
        if label and word != before:
            assert before[: -len(word)].rstrip(" \n\\").endswith(".")


def test_a_marked_unit_ends_with_its_token(data, tokenizer):
    for name in ("name_called", "in_docstring", "in_comment", "name_assigned"):
        for before, after, _label in marks(data, name, tokenizer):
            assert before[-1].isalnum() or before[-1] == "_"
            assert not after[:1].isalnum() and after[:1] != "_"


def test_a_comments_line_has_a_hash_sign(data, tokenizer):
    found = 0
    for before, _after, label in marks(data, "in_comment", tokenizer):
        lines = before.split("\n")
        if label and len(lines) > 1:
            found += 1
            assert "#" in lines[-1]
    assert found > 5


def test_contexts_are_the_runs_own(data, tokenizer):
    bos = tokenizer.bos_token_id
    assert data.first_scored == 1
    assert (
        len({text.id for text in data.texts}) == len({text.tokens for text in data.texts}) == len(data.texts)
    )
    for text in data.texts:
        assert text.tokens[0] == bos
        assert 2 <= len(text.tokens) <= OPTIONS.context_length
    assert sum(len(text.tokens) for text in data.texts) <= 32_768


# ---- the draw ---------------------------------------------------------------------------------------


def same(one, other, left, right):
    assert one.task == other.task
    assert [left.texts[text].id for text in one.text] == [right.texts[text].id for text in other.text]
    for column in ("position", "label", "is_test"):
        assert np.array_equal(getattr(one, column), getattr(other, column))


def test_a_task_alone_has_the_examples_that_it_has_in_the_set(data, small, tokenizer):
    alone = load(tokenizer, ["stdlib/in_docstring", "stdlib/file_is_test", "stdlib/in_docstring"])
    names = [one.task.name for one in (*alone.tasks, *alone.skipped)]
    assert names == ["stdlib/in_docstring", "stdlib/file_is_test"]
    for one in alone.tasks:
        in_set = next(each for each in data.tasks if each.task.name == one.task.name)
        same(one, in_set, alone, data)
    assert len(alone.texts) < len(data.texts)


def test_another_seed_draws_others_with_the_same_sides(data, small, tokenizer):
    other = load(tokenizer, ["stdlib/in_docstring"], seed=1)
    first = next(one for one in data.tasks if one.task.name == "stdlib/in_docstring")
    ids = [
        {data.texts[text].id for text in first.text},
        {other.texts[text].id for text in other.tasks[0].text},
    ]
    assert ids[0] != ids[1]
    sides = {}
    for data_, one in ((data, first), (other, other.tasks[0])):
        for text, is_test in zip(one.text.tolist(), one.is_test.tolist(), strict=True):
            assert sides.setdefault(data_.texts[text].group, is_test) == is_test


def test_without_the_librarys_tests_their_tasks_are_skipped_with_the_reason(small, tokenizer, monkeypatch):
    whole = source_tasks.library_files

    def stripped(sought):
        files = whole(sought)
        return LibraryFiles(files.library, (), "this interpreter comes without the library's own tests")

    monkeypatch.setattr(source_tasks, "library_files", stripped)
    found = load(tokenizer, ["stdlib/file_is_test", "stdlib/in_comment"])
    assert [one.task.name for one in found.tasks] == ["stdlib/in_comment"]
    assert "without the library's own tests" in found.skipped[0].reason


def test_without_bos_positions_begin_at_the_first_token(small, tokenizer):
    options = ContextOptions(context_length=64, prepend_bos=False)
    found = load(tokenizer, ["stdlib/name_called"], options=options)
    assert found.first_scored == 0
    one = found.tasks[0]
    for text, position, label in zip(one.text, one.position, one.label, strict=True):
        after = tokenizer.decode(found.texts[text].tokens[position + 1 :])
        assert not after or after.lstrip().startswith("(") >= label


def test_a_library_without_tests_has_none_and_says_so(tmp_path):
    for number in range(60):
        (tmp_path / f"m{number}.py").write_text(f"x{number} = {number}\n")
    files = source_files.library_files(["x1 "], root=tmp_path)
    assert len(files.library) == 60
    assert files.tests == () and "without" in files.no_tests


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(CorpusError, match="fast tokenizer"):
        load_probe_data(["stdlib"], tokenizer=Slow(), options=OPTIONS, examples=60, seed=0)
