import ast
import io
import sysconfig
import tokenize
from pathlib import Path

import numpy as np
import pytest

from autointerp.probing.python_units import UNIT_KINDS, SourceLines, source_units
from autointerp.probing.source_features import FACTS, FEATURES
from autointerp.probing.source_table import _analysed
from autointerp.probing.syntax_spans import syntax_spans
from autointerp.sampling.corpus import document_of

SOURCE = '''"""Module words: été."""
import os.path as p
from typing import Any

LIMIT = 10  # été inline note
# own line


@decorate(deep=True)
class Thing(Base, metaclass=Meta):
    """Class words."""

    def method(self, first: int = 3, *rest, **named) -> Any:
        """Returns first."""
        self.kept = first
        for item in rest:
            if item not in named and first:
                print("sé plain", f"in {braces} text", sep="")
        values = [one for one in rest if one]
        try:
            return named["key"][0]
        except (ValueError, os.error) as problem:
            raise RuntimeError("bad \\\\news \\n tail") from problem

    async def later(self):
        with self.lock:
            yield lambda: LIMIT


class TestThing(unittest.TestCase):
    def __len__(self):
        while True:
            return {"a": 1, (2): 3}


if __name__ == "__main__":
    other.call(_private, x if y else z)
'''


def analysed(text):
    units, features, facts = _analysed(document_of(text))
    return units, features, facts


def with_feature(name, text=SOURCE, kind=None):
    units, features, _facts = analysed(text)
    chosen = features[:, FEATURES.index(name)]
    if kind is not None:
        chosen &= units.kind == UNIT_KINDS.index(kind)
    return [text[start:end] for start, end in zip(units.start[chosen], units.end[chosen], strict=True)]


@pytest.mark.parametrize(
    ("feature", "kind", "expected"),
    [
        ("docstring", "docstring", ["Module", "words", "t", "Class", "words", "Returns", "first"]),
        ("comment", "comment", ["t", "inline", "note", "own", "line"]),
        ("inline_comment", "comment", ["t", "inline", "note"]),
        ("fstring", "string", ["in", "braces", "text"]),
        ("number", "number", ["10", "3", "0", "1", "2", "3"]),
        ("function_name", "name", ["method", "later", "__len__"]),
        ("class_name", "name", ["Thing", "TestThing"]),
        ("imported_name", "name", ["os", "path", "p", "Any"]),
        ("parameter", "name", ["self", "first", "rest", "named", "self", "self"]),
        ("annotation", "name", ["int", "Any"]),
        ("default_value", None, ["3"]),
        ("decorator", "name", ["decorate", "deep"]),
        ("base_class", "name", ["Base", "unittest", "TestCase"]),
        ("keyword_argument", "name", ["deep", "sep"]),
        ("called", "name", ["decorate", "print", "RuntimeError", "call"]),
        ("attribute", "name", ["kept", "error", "lock", "TestCase", "call"]),
        ("own_attribute", "name", ["kept", "lock"]),
        ("assigned", "name", ["LIMIT", "kept", "values"]),
        ("loop_variable", "name", ["item"]),
        ("exception", "name", ["ValueError", "error", "RuntimeError"]),
        ("lambda", None, ["LIMIT"]),
        ("comprehension", "keyword", ["for", "in", "if"]),
        ("raise", "string", ["bad", "news", "tail"]),
        ("dictionary_key", "string", ["a"]),
        ("dictionary_key", "number", ["2"]),
        ("subscript", "number", ["0"]),
        ("private_name", "name", ["_private"]),
        ("upper_name", "name", ["LIMIT", "LIMIT"]),
        ("async", "name", ["later", "self", "self", "lock", "LIMIT"]),
        ("test_class", "name", ["__len__", "self"]),
        ("dunder_method", "keyword", ["while", "True", "return"]),
        ("expression", "keyword", ["not", "in", "and", "for", "in", "if", "lambda", "if", "else"]),
        ("first_in_block", "keyword", ["if", "return", "raise", "with", "yield", "def", "while", "return"]),
        ("first_in_block", "name", ["print", "other"]),
        ("import_from", None, ["from", "typing", "import", "Any"]),
        ("braces", "number", ["1", "2", "3"]),
        ("with_body", "keyword", ["yield", "lambda"]),
        ("handler_body", "keyword", ["raise", "from"]),
        ("try_body", "keyword", ["return"]),
        ("returned", "name", ["named"]),
        ("generator", "keyword", ["with", "yield", "lambda"]),
        ("condition", "name", ["item", "named", "first", "__name__", "y"]),
    ],
)
def test_features_of_hand_written_source(feature, kind, expected):
    found = with_feature(feature, kind=kind)
    if feature == "condition":  # that of the comprehension
        found = [one for one in found if one != "one"]
    assert found == expected


def test_names_of_parameters_read_in_a_function_have_the_feature():
    text = "def f(a, b):\n    def g(c, a2=b):\n        return a + c + d\n    return lambda e: e + g(b)\n"
    assert with_feature("parameter_read", text, "name") == ["b", "a", "c", "e", "b"]


def test_what_stands_in_the_braces_of_an_f_string_is_text():
    text = "x = f'{name(1)} and {other!r:>{width}} {{}}'\n"
    assert with_feature("called", text) == []
    assert with_feature("fstring", text) == ["name", "1", "and", "other", "r", "width"]


def test_docstrings_say_what_they_say():
    text = (
        'def f(size, self):\n    """Returns nothing of size."""\n\n'
        'def g(size):\n    """It does."""\n\ndef h():\n    """return"""\n'
    )
    ends = {
        name: with_feature(name, text, "docstring_end")
        for name in ("docstring_says_return", "docstring_names_parameter", "docstring_with_parameters")
    }
    assert ends["docstring_says_return"] == ['"""Returns nothing of size."""', '"""return"""']
    assert ends["docstring_names_parameter"] == ['"""Returns nothing of size."""']
    assert ends["docstring_with_parameters"] == ['"""Returns nothing of size."""', '"""It does."""']


def test_facts_of_files():
    _units, _features, facts = analysed(SOURCE)
    assert facts >= {"has_class", "has_async", "has_main_guard", "imports_typing"}
    assert analysed("x = 1\n")[2] & set(FACTS) == set()


@pytest.mark.parametrize("text", ["def f(:\n", "x = (\n", "\0", "  x\n y\n"])
def test_what_is_no_python_is_left_out(text):
    assert _analysed(document_of(text)) is None


def test_warnings_of_others_source_are_not_ours():
    assert with_feature("string", "x = '\\d'\ny = 'a'\n") == ["a"]


def test_no_feature_is_misspelt():
    units, _features, _facts = analysed(SOURCE)
    spans = syntax_spans(SOURCE, SourceLines(SOURCE)).spans
    assert set(units.spans) | set(spans) <= set(FEATURES)
    assert len(set(FEATURES)) == len(FEATURES)


MODULES = ["textwrap.py", "asyncio/queues.py", "json/decoder.py", "dataclasses.py", "quopri.py"]


@pytest.fixture(scope="module", params=MODULES)
def module(request):
    path = Path(sysconfig.get_path("stdlib")) / request.param
    with tokenize.open(path) as stream:
        text = stream.read()
    units, features, _facts = analysed(text)
    return text, units, lambda name: features[:, FEATURES.index(name)]


def test_tokens_of_code_are_those_of_tokenize(module):
    text, units, has = module
    code = has("name") | has("keyword") | has("number") | has("operator")
    ours = [text[start:end] for start, end in zip(units.start[code], units.end[code], strict=True)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    theirs = []
    inside = 0
    for token in tokens:
        inside += tokenize.tok_name[token.type] == "FSTRING_START"
        inside -= tokenize.tok_name[token.type] == "FSTRING_END"
        if not inside and token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.OP):
            theirs.append(token.string)
    assert ours == theirs


def test_features_agree_with_the_characters_around(module):
    text, units, has = module
    before = [text[:start].rstrip()[-24:] for start in units.start]
    after = [text[end : end + 200].lstrip() for end in units.end]
    names = has("name")
    for at in np.flatnonzero(names):
        word = text[units.start[at] : units.end[at]]
        assert word.isidentifier()
        if has("called")[at]:
            assert after[at].startswith("(")
        if has("attribute")[at]:
            assert before[at].endswith(".")
        if has("keyword_argument")[at] and not has("call_argument")[at]:
            pytest.fail("a keyword argument is an argument")
        if has("keyword_argument")[at]:
            assert after[at].startswith("=")
        if has("function_name")[at]:
            assert before[at].endswith("def") and after[at].startswith("(")
        if has("class_name")[at]:
            assert before[at].endswith("class") and after[at][0] in "(:"
        if has("own_attribute")[at]:
            assert before[at].endswith(("self.", "cls."))


def test_counts_agree_with_the_tree(module):
    text, _units, has = module
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    functions = [one for one in nodes if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert (has("function_name") & has("name")).sum() == len(functions)
    arguments = [one for one in nodes if isinstance(one, ast.arg)]
    in_lambdas = [one for two in nodes if isinstance(two, ast.Lambda) for one in ast.walk(two.args)]
    assert (has("parameter") & has("name")).sum() == len(arguments) - sum(
        isinstance(one, ast.arg) for one in in_lambdas
    )
    documented = [
        one
        for one in nodes
        if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(one, clean=False) is not None
    ]
    assert has("docstring_end").sum() == len(documented)


def test_docstring_words_are_in_docstrings(module):
    text, units, has = module
    words = {
        text[start:end]
        for start, end in zip(units.start[has("docstring")], units.end[has("docstring")], strict=True)
    }
    documentation = " ".join(
        ast.get_docstring(node, clean=False) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert all(word in documentation for word in words)


def test_places_in_lines_that_are_not_ascii_are_characters():
    text = "é = 'ü' ; ß.méthode(x)\n"
    lines = SourceLines(text)
    units = source_units(text, lines, {})
    assert [text[start:end] for start, end in zip(units.start, units.end, strict=True)] == [
        *("é", "=", ";", "ß", ".", "méthode", "(", "x", ")")
    ]
    assert with_feature("attribute", text) == ["méthode"]
    assert with_feature("called", text) == ["méthode"]
