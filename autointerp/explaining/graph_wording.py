"""A graph -> a short sentence for people, and the trie as lines of text."""

from collections.abc import Iterator, Mapping

from autointerp.explaining.graph_trie import ANY, START, Graph, Path

__all__ = ["drawn", "worded"]

_MOST_PATHS = 4
_MOST_TOKENS = 6
_MOST_LINES = 40
_MARKS = {ANY: "*", START: "^"}


def worded(graph: Graph, texts: Mapping[int, str]) -> str:
    """Its paths that most activations ended, in reading order: `Fires on "b" after "a", any token`.

    A path says what stands before the token, nearest last; `^` is the beginning of the text.
    """
    paths = sorted(graph.paths, key=lambda each: (-each[1], len(each[0].tokens)))
    total = sum(count for _, count in paths)
    merged: dict[str, int] = {}
    for path, count in paths:
        words = _path_words(path, texts)
        merged[words] = merged.get(words, 0) + count
    shown = sorted(merged, key=lambda words: -merged[words])[:_MOST_PATHS]
    listed = "; ".join(f"{words} ({merged[words]} of {total})" for words in shown)
    rest = len(merged) - len(shown)
    return f"Fires on {listed}{f'; {rest} more' if rest else ''}."


def _path_words(path: Path, texts: Mapping[int, str]) -> str:
    own = "any token" if path.tokens[0] == ANY else _quoted(texts[path.tokens[0]])
    before = [*path.tokens[1:], *((START,) if path.needs_start else ())]
    if not before:
        return own
    nearest = before[:_MOST_TOKENS]
    words = [_quoted(texts[token]) if token >= 0 else _MARKS[token] for token in reversed(nearest)]
    return f"{own} after {'… ' if len(before) > len(nearest) else ''}{' '.join(words)}"


def drawn(graph: Graph, texts: Mapping[int, str], *, lines: int = _MOST_LINES) -> tuple[str, ...]:
    """The trie as lines, each node indented under the one nearer to the firing token.

    A node at which paths end has its strength and how many activations ended there. `*` is any token, `^` the
    beginning of the text. A node with one child shares its line. Tokens are as Python writes them.
    """
    found = list(_lines(graph, texts, lines + 1))
    return tuple(found) if len(found) <= lines else (*found[:lines], "…")


def _lines(graph: Graph, texts: Mapping[int, str], most: int) -> Iterator[str]:
    children: dict[int, list[int]] = {}
    for place, node in enumerate(graph.nodes):
        children.setdefault(node.parent, []).append(place)
    pending = [(place, 0) for place in reversed(children.get(-1, []))]
    written = 0
    while pending and written < most:
        place, depth = pending.pop()
        words = []
        while True:
            node = graph.nodes[place]
            words.append(_node_words(node.token, texts))
            if node.value is not None:
                words[-1] += f"  [{node.value:.3g}{f', {node.count} times' if node.count > 1 else ''}]"
            below = children.get(place, [])
            if len(below) != 1:
                break
            place = below[0]
        yield f"{'    ' * depth}{' < '.join(words)}"
        written += 1
        pending += [(child, depth + 1) for child in reversed(below)]


def _node_words(token: int, texts: Mapping[int, str]) -> str:
    return _MARKS[token] if token < 0 else _quoted(texts[token])


def _quoted(text: str) -> str:
    """As Python would write it, so that spaces and line breaks can be told apart."""
    return f'"{repr(text)[1:-1]}"'
