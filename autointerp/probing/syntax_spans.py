"""Reads off a syntax tree which stretches of source are what: names being defined, annotations, loops, ..."""

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from autointerp.probing.python_units import SourceLines

__all__ = ["SyntaxSpans", "syntax_spans"]

Span = tuple[int, int]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Their children's places are wrong before Python 3.12, so that what stands in braces counts as text.
_OPAQUE = tuple(getattr(ast, name) for name in ("JoinedStr", "TemplateStr") if hasattr(ast, name))
_WITH_KEYWORDS = (ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp, ast.Lambda, *_COMPREHENSIONS)
_INTRODUCTION = re.compile(r"(?:async[\s\\]+)?(?:def|class)[\s\\]+")
_TEST_CLASS = re.compile(r"^Test|Tests?$")
_DUNDER = re.compile(r"__\w+__")


@dataclass
class SyntaxSpans:
    """What a tree says of its text."""

    text: str
    lines: SourceLines
    spans: dict[str, list[Span]] = field(default_factory=dict)
    """Feature -> stretches of text, as character offsets."""
    docstrings: dict[int, int] = field(default_factory=dict)
    """Start -> end of every docstring."""
    facts: set[str] = field(default_factory=set)
    """What is true of the file as a whole."""

    def of(self, node: ast.AST) -> Span:
        """Where a node stands, without its decorators."""
        return (
            self.lines.of_bytes(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self.lines.of_bytes(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def mark(self, feature: str, *nodes: ast.AST | None) -> None:
        """The nodes' text has the feature."""
        self.spans.setdefault(feature, []).extend(self.of(node) for node in nodes if node is not None)

    def mark_text(self, feature: str, start: int, text: str) -> None:
        """So has this text, if it stands where it should."""
        if self.text.startswith(text, start):
            self.spans.setdefault(feature, []).append((start, start + len(text)))

    def mark_body(self, feature: str, body: list[ast.stmt]) -> None:
        """So have statements, from the first to the last."""
        if body:
            self.spans.setdefault(feature, []).append((self.of(body[0])[0], self.of(body[-1])[1]))

    def mark_header(self, feature: str, node: ast.AST, body: list[ast.stmt]) -> None:
        """So has a statement up to its body."""
        if body:
            self.spans.setdefault(feature, []).append((self.of(node)[0], self.of(body[0])[0]))


def syntax_spans(text: str, lines: SourceLines) -> SyntaxSpans:
    """The stretches of a file that have a feature; what they are is said in `probes/stdlib/*/task.toml`.

    Raises:
        SyntaxError, ValueError, RecursionError: it cannot be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of others' source: escapes that mean nothing, say
        tree = ast.parse(text)
    found = SyntaxSpans(text, lines)
    _docstring(tree, found)
    for node, parameters in _nodes(tree):
        if isinstance(node, _WITH_KEYWORDS):
            found.mark("expression", node)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in parameters:
            found.mark("parameter_read", node)
        reader = _READERS.get(type(node))
        if reader is not None:
            reader(node, found)
    return found


def _nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """All nodes but those inside an f-string, parents first, with the parameters of the functions around."""
    waiting: list[tuple[ast.AST, frozenset[str]]] = [(tree, frozenset())]
    for node, names in waiting:
        yield node, names
        if isinstance(node, _OPAQUE):
            continue
        inside, body = names, set()
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            inside = names | {argument.arg for argument in _arguments(node.args)}
            body = {id(part) for part in (node.body if isinstance(node.body, list) else [node.body])}
        waiting.extend(
            (child, inside if id(child) in body else names) for child in ast.iter_child_nodes(node)
        )


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _docstring(node: ast.Module | ast.ClassDef | _Function, found: SyntaxSpans) -> str | None:
    first = node.body[0] if node.body else None
    value = first.value if isinstance(first, ast.Expr) else None
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return None
    start, end = found.of(value)
    found.docstrings[start] = end
    return value.value


def _function(node: _Function, found: SyntaxSpans) -> None:
    _introduced("function_name", node, found)
    found.mark_header("definition_header", node, node.body)
    found.mark_body("function_body", node.body)
    found.mark("decorator", *node.decorator_list)
    found.mark("annotation", node.returns)
    if isinstance(node, ast.AsyncFunctionDef):
        found.mark("async", node)
        found.facts.add("has_async")
    if _DUNDER.fullmatch(node.name):
        found.mark_body("dunder_method", node.body)
    if any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in _own_nodes(node)):
        found.mark_body("generator", node.body)
    names = _parameters(node, found)
    documentation = _docstring(node, found)
    if documentation is not None:
        _function_docstring(node, documentation, names, found)


def _function_docstring(node: _Function, documentation: str, names: set[str], found: SyntaxSpans) -> None:
    whole = node.body[0].value  # type: ignore[attr-defined]
    found.mark("function_docstring", whole)
    if re.search(r"\breturn", documentation, re.IGNORECASE):
        found.mark("docstring_says_return", whole)
    words = set(re.findall(r"\w+", documentation))
    told = names - {"self", "cls"}
    if told:
        found.mark("docstring_with_parameters", whole)
        if told & words:
            found.mark("docstring_names_parameter", whole)


def _parameters(node: _Function, found: SyntaxSpans) -> set[str]:
    listed = _arguments(node.args)
    for argument in listed:
        found.mark_text("parameter", found.of(argument)[0], argument.arg)
        found.mark("annotation", argument.annotation)
    found.mark("default_value", *node.args.defaults, *node.args.kw_defaults)
    return {argument.arg for argument in listed}


def _own_nodes(node: _Function) -> Iterator[ast.AST]:
    """Nodes of a function's body that are not inside a function or class of its own."""
    waiting: list[ast.AST] = list(node.body)
    for inner in waiting:
        yield inner
        if not isinstance(inner, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(inner))


def _introduced(feature: str, node: ast.ClassDef | _Function, found: SyntaxSpans) -> None:
    """The name after `def` or `class`."""
    match = _INTRODUCTION.match(found.text, found.of(node)[0])
    if match is not None:
        found.mark_text(feature, match.end(), node.name)


def _class(node: ast.ClassDef, found: SyntaxSpans) -> None:
    found.facts.add("has_class")
    _introduced("class_name", node, found)
    found.mark_header("definition_header", node, node.body)
    found.mark("decorator", *node.decorator_list)
    found.mark("base_class", *node.bases)
    found.mark_body("class_body", node.body)
    _docstring(node, found)
    bases = [_last_name(base) for base in node.bases]
    if _TEST_CLASS.search(node.name) or any(base.endswith("TestCase") for base in bases):
        found.mark_body("test_class", node.body)
    for method in node.body:
        if isinstance(method, _FUNCTIONS):
            found.mark_body("method", method.body)
            found.mark_header("method_header", method, method.body)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _attribute_name(feature: str, node: ast.Attribute, found: SyntaxSpans) -> None:
    found.mark_text(feature, found.of(node)[1] - len(node.attr), node.attr)


def _attribute(node: ast.Attribute, found: SyntaxSpans) -> None:
    _attribute_name("attribute", node, found)
    if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
        _attribute_name("own_attribute", node, found)


def _call(node: ast.Call, found: SyntaxSpans) -> None:
    if isinstance(node.func, ast.Name):
        found.mark("called", node.func)
    elif isinstance(node.func, ast.Attribute):
        _attribute_name("called", node.func, found)
    found.mark("call_argument", *node.args, *node.keywords)
    for given in node.keywords:
        if given.arg is not None:
            found.mark_text("keyword_argument", found.of(given)[0], given.arg)


def _targets(feature: str, targets: Iterable[ast.expr], found: SyntaxSpans) -> None:
    for target in targets:
        if isinstance(target, ast.Name):
            found.mark(feature, target)
        elif isinstance(target, ast.Attribute):
            _attribute_name(feature, target, found)
        elif isinstance(target, (ast.Tuple, ast.List)):
            _targets(feature, target.elts, found)
        elif isinstance(target, ast.Starred):
            _targets(feature, [target.value], found)


def _assign(node: ast.Assign, found: SyntaxSpans) -> None:
    _targets("assigned", node.targets, found)


def _other_assign(node: ast.AnnAssign | ast.AugAssign, found: SyntaxSpans) -> None:
    _targets("assigned", [node.target], found)
    if isinstance(node, ast.AnnAssign):
        found.mark("annotation", node.annotation)


def _loop(node: ast.For | ast.AsyncFor | ast.While, found: SyntaxSpans) -> None:
    found.mark_header("control_header", node, node.body)
    found.mark_body("loop_body", node.body)
    if isinstance(node, ast.While):
        found.mark("condition", node.test)
    else:
        _targets("loop_variable", [node.target], found)


def _if(node: ast.If, found: SyntaxSpans) -> None:
    found.mark_header("control_header", node, node.body)
    found.mark("condition", node.test)
    test = node.test
    if isinstance(test, ast.Compare) and _last_name(test.left) == "__name__":
        found.facts.add("has_main_guard")


def _conditional(node: ast.IfExp | ast.Assert, found: SyntaxSpans) -> None:
    found.mark("condition", node.test)


def _with(node: ast.With | ast.AsyncWith, found: SyntaxSpans) -> None:
    found.mark_header("control_header", node, node.body)
    found.mark_body("with_body", node.body)


def _try(node: ast.Try, found: SyntaxSpans) -> None:
    found.mark_body("try_body", node.body)
    for handler in node.handlers:
        found.mark_header("control_header", handler, handler.body)
        found.mark_body("handler_body", handler.body)
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        _exceptions(kinds, found)


def _raise(node: ast.Raise, found: SyntaxSpans) -> None:
    found.mark("raise", node)
    _exceptions([node.exc.func if isinstance(node.exc, ast.Call) else node.exc], found)


def _exceptions(nodes: Iterable[ast.expr | None], found: SyntaxSpans) -> None:
    for node in nodes:
        if isinstance(node, ast.Name):
            found.mark("exception", node)
        elif isinstance(node, ast.Attribute):
            _attribute_name("exception", node, found)


def _import(node: ast.Import | ast.ImportFrom, found: SyntaxSpans) -> None:
    found.mark("import", node)
    found.mark("imported_name", *node.names)
    if isinstance(node, ast.ImportFrom):
        found.mark("import_from", node)
    modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    found.facts.update(f"imports_{module.partition('.')[0]}" for module in modules if module)


def _lambda(node: ast.Lambda, found: SyntaxSpans) -> None:
    found.mark("lambda", node.body)


def _comprehension(node: ast.expr, found: SyntaxSpans) -> None:
    found.mark("comprehension", node)


def _dictionary(node: ast.Dict, found: SyntaxSpans) -> None:
    found.mark("dictionary_key", *node.keys)


def _return(node: ast.Return, found: SyntaxSpans) -> None:
    found.mark("returned", node.value)


def _subscript(node: ast.Subscript, found: SyntaxSpans) -> None:
    found.mark("subscript", node.slice)


_READERS: dict[type[ast.AST], Callable[..., None]] = {
    ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function,
    ast.ClassDef: _class,
    ast.Attribute: _attribute,
    ast.Call: _call,
    ast.Assign: _assign,
    ast.AnnAssign: _other_assign,
    ast.AugAssign: _other_assign,
    ast.For: _loop,
    ast.AsyncFor: _loop,
    ast.While: _loop,
    ast.If: _if,
    ast.IfExp: _conditional,
    ast.Assert: _conditional,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Try: _try,
    getattr(ast, "TryStar", ast.Try): _try,
    ast.Raise: _raise,
    ast.Import: _import,
    ast.ImportFrom: _import,
    ast.Lambda: _lambda,
    ast.Dict: _dictionary,
    ast.Return: _return,
    ast.Subscript: _subscript,
} | dict.fromkeys(_COMPREHENSIONS, _comprehension)
