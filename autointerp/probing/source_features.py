"""The closed lists of what a task may ask of Python source: kinds and features of units, facts of files."""

from autointerp.probing.python_units import UNIT_KINDS

__all__ = ["FACTS", "FEATURES", "UNIT_KINDS"]

FACTS = ("has_async", "has_class", "has_main_guard", "imports_typing", "is_test")
"""What can be true of a file. `is_test`: it is one of the library's own tests."""

_OF_TOKENS = (
    "braces",
    "deep",
    "first_in_block",
    "fstring",
    "inline_comment",
    "last_in_line",
    "parentheses",
    "private_name",
    "square_brackets",
    "upper_name",
)
_OF_SYNTAX = (
    "annotation",
    "assigned",
    "async",
    "attribute",
    "base_class",
    "call_argument",
    "called",
    "class_body",
    "class_name",
    "comprehension",
    "condition",
    "control_header",
    "decorator",
    "default_value",
    "definition_header",
    "dictionary_key",
    "docstring_names_parameter",
    "docstring_says_return",
    "docstring_with_parameters",
    "dunder_method",
    "exception",
    "expression",
    "function_body",
    "function_docstring",
    "function_name",
    "generator",
    "handler_body",
    "import",
    "import_from",
    "imported_name",
    "keyword_argument",
    "lambda",
    "loop_body",
    "loop_variable",
    "method",
    "method_header",
    "own_attribute",
    "parameter",
    "parameter_read",
    "raise",
    "returned",
    "subscript",
    "test_class",
    "try_body",
    "with_body",
)

FEATURES = (*UNIT_KINDS, *_OF_TOKENS, *_OF_SYNTAX)
"""What a unit of source can have, its kind included."""
