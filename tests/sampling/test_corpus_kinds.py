import hashlib
import json
import sys
import sysconfig
import types
from pathlib import Path

import polars as pl
import pytest

from autointerp.errors import CorpusError
from autointerp.sampling import corpus as corpus_module
from autointerp.sampling.corpora import json_files, local_files, stdlib, text_files
from autointerp.sampling.corpora.stdlib import StandardLibrary
from autointerp.sampling.corpus import Corpus, document_of, open_corpus

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def texts(corpus):
    return [document.text for document in corpus.documents()]


def assert_refused(corpus, *parts):
    with pytest.raises(CorpusError) as caught:
        list(corpus() if callable(corpus) else corpus.documents())
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line, line


# ---- documents --------------------------------------------------------------------------------------


def test_an_id_is_the_start_of_the_hash_of_the_text():
    document = document_of("é\n", name="a")
    assert document.id == hashlib.sha256("é\n".encode()).hexdigest()[:16]
    assert (document.name, document.text) == ("a", "é\n")


def test_half_a_surrogate_pair_becomes_a_replacement_character():
    assert document_of("a\ud83d!").text == "a\ufffd!"
    assert document_of("\ud83d\ude42").text == "🙂"


class Listed:
    name = "listed"

    def __init__(self, texts):
        self._texts = texts
        self.pulled = 0

    def texts(self):
        for number, text in enumerate(self._texts):
            self.pulled += 1
            yield str(number), text

    def identity(self):
        yield json.dumps(self._texts).encode()


def test_empty_and_repeated_documents_are_left_out_and_counted():
    corpus = Corpus("text", Listed(["a", " \n\t", "b", "a", "", "b", "c"]))
    assert texts(corpus) == ["a", "b", "c"]
    described = corpus.describe()
    assert (described["document_count"], described["empty_count"], described["repeated_count"]) == (3, 2, 2)
    assert texts(corpus) == ["a", "b", "c"]
    assert corpus.describe() == described


def test_documents_are_read_one_at_a_time():
    source = Listed(["a", "b", "c"])
    documents = Corpus("text", source).documents()
    next(documents)
    assert source.pulled == 1


def test_a_corpus_without_text_is_refused():
    assert_refused(Corpus("text", Listed(["", " "])), "no text", "2 empty")


# ---- opening ----------------------------------------------------------------------------------------


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path):
    assert_refused(
        lambda: open_corpus("csv", path=tmp_path), "'csv'", "stdlib, text, jsonl, parquet, datasets"
    )


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet", "datasets"])
def test_every_kind_but_the_library_needs_a_path(kind):
    assert_refused(lambda: open_corpus(kind), kind, "set path")


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_a_missing_path_is_refused_at_once(kind, tmp_path):
    assert_refused(lambda: open_corpus(kind, path=tmp_path / "none"), "none", "no such file or folder")


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_an_empty_folder_is_refused(kind, tmp_path):
    assert_refused(open_corpus(kind, path=tmp_path), "the folder has no .")


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_no_absolute_path_is_described(kind, tmp_path):
    path = tmp_path / "words"
    if kind == "parquet":
        pl.DataFrame({"text": ["x"]}).write_parquet(path)
    else:
        path.write_text('"x"\n')
    corpus = open_corpus(kind, path=path)
    names = [document.name for document in corpus.documents()]
    assert str(tmp_path) not in json.dumps([corpus.describe(), names])
    assert corpus.describe()["name"] == "words"


# ---- text -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    contents = {
        "a.txt": "A",
        "b.md": "B",
        "sub/c.py": "C",
        "d.bin": "no",
        ".git/e.txt": "no",
        "sub/.f.txt": "no",
    }
    for name, content in contents.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "corpus"


def test_a_folder_of_text_is_one_document_per_file_in_an_order_that_its_name_gives(folder):
    documents = list(open_corpus("text", path=folder).documents())
    names = [document.name for document in documents]
    assert sorted((document.name, document.text) for document in documents) == [
        ("a.txt", "A"),
        ("b.md", "B"),
        ("sub/c.py", "C"),
    ]
    assert names == sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def test_one_text_file_is_one_document_whatever_it_is_called(folder):
    assert texts(open_corpus("text", path=folder / "d.bin")) == ["no"]


def test_a_byte_order_mark_is_no_text(folder):
    (folder / "d.bin").write_bytes(b"\xef\xbb\xbfhello")
    assert texts(open_corpus("text", path=folder / "d.bin")) == ["hello"]


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_a_separator_cuts_a_file_into_documents_wherever_blocks_end(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", block)
    (tmp_path / "all.txt").write_text("one\n<|end|>\ntwö\n<|end|><|end|>three")
    corpus = open_corpus("text", path=tmp_path / "all.txt", separator="<|end|>")
    assert texts(corpus) == ["one\n", "\ntwö\n", "three"]
    assert [document.name for document in corpus.documents()] == ["all.txt#1", "all.txt#2", "all.txt#4"]


def test_text_that_is_no_utf8_is_refused_with_the_place(folder):
    (folder / "a.txt").write_bytes("früh".encode("latin-1"))
    assert_refused(open_corpus("text", path=folder), "a.txt", "not UTF-8 (byte 2 is 0xfc)")


def test_a_blank_line_as_separator_makes_paragraphs_documents_of_one_file_and_of_a_folder(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"{name} one\nline\n\n{name} two\n\n\n\n{name} three\n")
    of_one = texts(open_corpus("text", path=tmp_path / "a.txt", separator="\n\n"))
    assert of_one == ["a.txt one\nline", "a.txt two", "a.txt three\n"]
    of_both = texts(open_corpus("text", path=tmp_path, separator="\n\n"))
    assert len(of_both) == 6
    assert set(of_one) < set(of_both)


def test_an_empty_separator_is_refused(tmp_path):
    assert_refused(lambda: open_corpus("text", path=tmp_path, separator=""), "separator is empty")


def test_a_document_that_is_too_large_is_refused(folder, monkeypatch):
    monkeypatch.setattr(text_files, "LARGEST_DOCUMENT_BYTES", 3)
    (folder / "a.txt").write_text("four")
    assert_refused(open_corpus("text", path=folder / "a.txt"), "larger than", "separator")
    assert texts(open_corpus("text", path=folder / "a.txt", separator="u")) == ["fo", "r"]


# ---- JSON -------------------------------------------------------------------------------------------


def jsonl(tmp_path, *lines, name="data.jsonl"):
    path = tmp_path / name
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_json_lines_hold_strings_or_objects(tmp_path):
    path = jsonl(tmp_path, '"plain"', "", '{"text": "in a field", "n": 1}', '{"text": null}', "")
    corpus = open_corpus("jsonl", path=path)
    assert texts(corpus) == ["plain", "in a field"]
    assert [document.name for document in corpus.documents()] == ["data.jsonl:1", "data.jsonl:3"]
    assert corpus.describe()["empty_count"] == 1


def test_another_field_can_be_named(tmp_path):
    path = jsonl(tmp_path, '{"story": "once"}')
    assert texts(open_corpus("jsonl", path=path, text_field="story")) == ["once"]


@pytest.mark.parametrize(
    "content", ['["a", {"text": "b"}]', ' \n["a", {"text": "b"}]', '"a"\n{"text": "b"}\n']
)
def test_a_json_file_is_a_list_or_lines(tmp_path, content):
    assert texts(open_corpus("jsonl", path=jsonl(tmp_path, content, name="data.json"))) == ["a", "b"]


def test_a_folder_of_json_files_is_read_by_name(tmp_path):
    jsonl(tmp_path, '"third"', name="c.jsonl")
    jsonl(tmp_path, '["first"]', name="a.json")
    jsonl(tmp_path, '"second"', name="b.ndjson")
    assert texts(open_corpus("jsonl", path=tmp_path)) == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"text": ', ["data.jsonl:2", "no JSON", "column"]),
        ('{"title": "x", "body": "y"}', ["data.jsonl:2", "'text'", "body, title", "text_field"]),
        ("{}", ["data.jsonl:2", "the fields are none"]),
        ('{"text": 3}', ["data.jsonl:2", "int where text"]),
        ("[1]", ["data.jsonl:2", "list where text"]),
        ("7", ["data.jsonl:2", "int where text"]),
        (b'"fr\xfch"', ["data.jsonl:2", "not UTF-8"]),
        ("[" * 100_000, ["data.jsonl:2"]),
        ("9" * 10_000, ["data.jsonl:2"]),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, line, parts):
    assert_refused(open_corpus("jsonl", path=jsonl(tmp_path, '"fine"', line, '"fine too"')), *parts)


def test_lines_before_a_bad_one_have_been_read(tmp_path):
    documents = open_corpus("jsonl", path=jsonl(tmp_path, '"fine"', "{")).documents()
    assert next(documents).text == "fine"


def test_a_line_or_list_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "LARGEST_DOCUMENT_BYTES", 4)
    monkeypatch.setattr(json_files, "_LARGEST_LIST_BYTES", 4)
    assert_refused(open_corpus("jsonl", path=jsonl(tmp_path, '"long"')), "data.jsonl:1", "longer")
    assert_refused(
        open_corpus("jsonl", path=jsonl(tmp_path, '["long"]', name="x.json")), "x.json", "JSON lines"
    )


def test_half_a_surrogate_pair_in_json_can_be_encoded(tmp_path):
    (text,) = texts(open_corpus("jsonl", path=jsonl(tmp_path, r'"a\ud83db"')))
    assert text.encode() == "a\ufffdb".encode()


# ---- Parquet ----------------------------------------------------------------------------------------


def test_parquet_is_read_in_slices_in_order(tmp_path, monkeypatch):
    from autointerp.sampling.corpora import parquet_files

    monkeypatch.setattr(parquet_files, "_ROWS_AT_A_TIME", 4)
    words = [f"word {number}" for number in range(10)]
    pl.DataFrame({"n": range(10), "text": words}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"text": ["last", None]}).write_parquet(tmp_path / "b.parquet")
    corpus = open_corpus("parquet", path=tmp_path)
    assert texts(corpus) == [*words, "last"]
    assert next(corpus.documents()).name == "a.parquet:0"


def test_a_parquet_file_without_the_column_is_refused_with_those_it_has(tmp_path):
    pl.DataFrame({"n": [1], "story": ["x"]}).write_parquet(tmp_path / "a.parquet")
    corpus = open_corpus("parquet", path=tmp_path / "a.parquet")
    assert_refused(corpus, "a.parquet", "'text'", "n, story", "text_field")
    assert_refused(open_corpus("parquet", path=tmp_path, text_field="n"), "'n'", "not text")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 100])
def test_what_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    assert_refused(open_corpus("parquet", path=tmp_path), "a.parquet", "Parquet")


def test_a_parquet_file_damaged_inside_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": [f"{number} {number**3}" for number in range(2000)]}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[100:3000] = bytes(2900)
    path.write_bytes(content)
    assert_refused(open_corpus("parquet", path=path), "a.parquet", "Parquet")


def test_a_parquet_file_that_makes_polars_panic_is_refused(tmp_path, monkeypatch):
    pl.DataFrame({"text": ["x"]}).write_parquet(tmp_path / "a.parquet")

    def panic(*_args, **_options):
        raise pl.exceptions.PanicException("range end index out of range")

    for owner, name in ((pl.LazyFrame, "collect"), (pl, "read_parquet_schema")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, panic)
            assert_refused(open_corpus("parquet", path=tmp_path), "a.parquet", "range end")


def test_a_row_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(local_files, "LARGEST_DOCUMENT_BYTES", 5)
    pl.DataFrame({"text": ["fives", "éée", "ééé"]}).write_parquet(tmp_path / "a.parquet")
    assert_refused(open_corpus("parquet", path=tmp_path), "a.parquet:2", "larger than", "split it up")
    fake_datasets(monkeypatch, lambda *_args, **_options: [{"text": "fives"}, {"text": "sixsix"}])
    assert_refused(open_corpus("datasets", path="a/b"), "a/b:train:1", "larger than")


# ---- datasets ---------------------------------------------------------------------------------------


def fake_datasets(monkeypatch, rows_of, commit=None):
    """A package whose data sets have the rows that a function gives; of `commit`, where one is given."""

    def load_dataset_builder(path, config, **options):
        def as_streaming_dataset(*, split):
            return rows_of(path, config, split=split, **options)

        return types.SimpleNamespace(hash=commit, as_streaming_dataset=as_streaming_dataset)

    module = types.ModuleType("datasets")
    module.load_dataset_builder = load_dataset_builder
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_without_the_package_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    corpus = open_corpus("datasets", path="a/b")
    assert_refused(corpus, "corpus a/b", "not installed", "autointerp-suite[datasets]")


def test_a_data_set_is_streamed_with_the_configuration_asked_for(monkeypatch):
    asked = []

    def rows_of(path, config, **options):
        asked.append((path, config, options))
        return iter([{"text": "one"}, {"text": None}, {"text": "two"}])

    fake_datasets(monkeypatch, rows_of, COMMIT)
    corpus = open_corpus("datasets", path="a/b", config="en", split="validation", revision=COMMIT)
    assert texts(corpus) == ["one", "two"]
    assert asked == [("a/b", "en", {"split": "validation", "revision": COMMIT})]
    assert corpus.describe()["name"] == "a/b:en:validation"


def test_offline_what_was_kept_of_a_data_set_is_read_under_its_own_commit(monkeypatch):
    """`datasets` then takes what it kept last, whatever was asked for."""
    fake_datasets(monkeypatch, lambda *_args, **_options: [{"text": "kept"}], COMMIT)
    kept = open_corpus("datasets", path="a/b")
    assert (texts(kept), kept.describe()["revision"]) == (["kept"], COMMIT)
    other = "f" * 40
    assert_refused(open_corpus("datasets", path="a/b", revision=other), f"{other} cannot be reached", COMMIT)
    assert_refused(open_corpus("datasets", path="a/b", revision="v1"), "cannot be read", "connection")


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_data_set_on_this_machine_is_called_by_the_last_part_of_its_path(
    tmp_path, monkeypatch, is_relative
):
    folder = tmp_path / "somebody" / "stories"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = Path("somebody/stories") if is_relative else folder
    assert open_corpus("datasets", path=path).describe()["name"] == "stories:train"


def test_faults_of_a_data_set_are_named(monkeypatch):
    def missing(*_args, **_options):
        raise FileNotFoundError("Dataset 'a/b' doesn't exist on the Hub\nmore")

    fake_datasets(monkeypatch, missing)
    assert_refused(open_corpus("datasets", path="a/b"), "doesn't exist", "connection")
    fake_datasets(monkeypatch, lambda *_args, **_options: [{"story": "x"}])
    assert_refused(open_corpus("datasets", path="a/b"), "'text'", "story")
    fake_datasets(monkeypatch, lambda *_args, **_options: [{"text": 3}])
    assert_refused(open_corpus("datasets", path="a/b"), "int where text")

    def torn():
        yield {"text": "x"}
        raise ConnectionError("gone")

    fake_datasets(monkeypatch, lambda *_args, **_options: torn())
    assert_refused(open_corpus("datasets", path="a/b"), "gone")


# ---- the standard library ---------------------------------------------------------------------------


def test_the_standard_library_is_this_interpreters_without_tests_and_packages():
    corpus = open_corpus("stdlib")
    documents = list(corpus.documents())
    names = [document.name for document in documents]
    by_name = {document.name: document.text for document in documents}
    root = Path(sysconfig.get_path("stdlib"))
    assert by_name["json/decoder.py"] == (root / "json" / "decoder.py").read_text(encoding="utf-8")
    assert len(names) > 300
    left_out = {"test", "tests", "idlelib", "lib2to3", "encodings", "site-packages", "__pycache__"}
    assert not any(left_out & set(name.split("/")) for name in names)
    assert names == sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def test_a_prefix_of_the_standard_library_is_spread_over_it():
    names = [document.name for document in open_corpus("stdlib").documents()][:100]
    assert len({name[0] for name in names}) > 8
    assert 0.1 < sum("/" in name for name in names) / 100 < 0.95


def test_a_zipped_or_stripped_library_is_refused(tmp_path):
    assert_refused(Corpus("stdlib", StandardLibrary(tmp_path / "python.zip")), "only 0 source files")
    for number in range(stdlib._FEWEST_FILES - 1):
        (tmp_path / f"m{number}.py").write_text(f"x = {number}")
    assert_refused(Corpus("stdlib", StandardLibrary(tmp_path)), "only 49 source files", "another corpus")
    (tmp_path / "last.py").write_text("# coding: latin-1\nx = 'fr\xfch'", encoding="latin-1")
    assert "# coding: latin-1\nx = 'früh'" in texts(Corpus("stdlib", StandardLibrary(tmp_path)))


def test_a_module_without_a_usable_encoding_is_left_out(tmp_path):
    for number in range(60):
        (tmp_path / f"m{number}.py").write_text(f"x = {number}")
    (tmp_path / "bad.py").write_bytes(b"x = '\xff'")
    (tmp_path / "worse.py").write_bytes(b"# coding: no-such-thing\n")
    assert len(texts(Corpus("stdlib", StandardLibrary(tmp_path)))) == 60


# ---- fingerprints -----------------------------------------------------------------------------------


def test_a_fingerprint_follows_kind_content_name_and_settings(tmp_path):
    path = jsonl(tmp_path, '{"text": "a", "other": "b"}')
    prints = [open_corpus("jsonl", path=path).fingerprint()]
    prints.append(open_corpus("jsonl", path=path, text_field="other").fingerprint())
    prints.append(open_corpus("text", path=path).fingerprint())
    prints.append(open_corpus("text", path=path, separator="x").fingerprint())
    path.write_text('{"text": "c", "other": "b"}')
    prints.append(open_corpus("jsonl", path=path).fingerprint())
    assert len(set(prints)) == len(prints)
    assert open_corpus("jsonl", path=path).fingerprint() == prints[-1]


def test_a_fingerprint_does_not_depend_on_where_the_corpus_lies(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "c").mkdir(parents=True)
        (tmp_path / place / "c" / "a.txt").write_text("x")
    assert (
        open_corpus("text", path=tmp_path / "here" / "c").fingerprint()
        == open_corpus("text", path=tmp_path / "there" / "c").fingerprint()
    )


def test_every_kind_can_be_opened():
    kinds = corpus_module.CorpusKind.__args__
    assert set(kinds) == {"stdlib", "text", "jsonl", "parquet", "datasets"}
