"""The exceptions that a user can meet, each with the exit code that the command line returns.

AutointerpError
├── BadInputError              2    something handed in is wrong; nothing was computed from it
│   ├── CheckpointError             a file is no checkpoint, is damaged, or does not fit
│   │   └── ForeignPickleError      it would call something that no checkpoint needs: somebody's other file
│   ├── SubjectError                the language model cannot be loaded or used
│   │   └── SiteError               it has no such place
│   ├── CorpusError                 no text, unreadable text, too little text
│   ├── SuiteError                  the suite file: unknown keys, wrong types, contradictions
│   ├── PolicyError                 the gate's policy: unknown keys, rules that cannot be meant so
│   ├── RunStoreError               the run directory: unwritable, in use, or another run's
│   └── EndpointError               the LLM: unknown host, wrong key, no such model, lacks what is needed
├── MetricFailedError          4    a metric could not be computed; the report says which and why
├── BudgetReachedError         5    the run's budget for LLM calls is used up; a larger one goes on from there
└── InterruptedRunError        130  stopped by the user; running it again goes on from there
"""

__all__ = [
    "AutointerpError",
    "BadInputError",
    "BudgetReachedError",
    "CheckpointError",
    "CorpusError",
    "EndpointError",
    "ForeignPickleError",
    "InterruptedRunError",
    "MetricFailedError",
    "PolicyError",
    "RunStoreError",
    "SiteError",
    "SubjectError",
    "SuiteError",
]


class AutointerpError(Exception):
    """Anything this package raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class BadInputError(AutointerpError):
    """One clear line: what is wrong, where it was found, what to do about it."""

    exit_code = 2

    def __init__(self, what: str, *, where: object = "", remedy: str = "") -> None:
        """Keep the three parts apart, so that a caller can show or test each of them."""
        self.what = what
        self.where = str(where)
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        """`where: what; remedy` on one line, whatever line breaks the parts contain."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.remedy}" if self.remedy else line
        return " ".join(line.split())


class CheckpointError(BadInputError):
    """A file is no checkpoint that we know, is damaged, or does not fit the subject."""


class ForeignPickleError(CheckpointError):
    """A pickle that would call what no checkpoint needs: refused, and rather another kind of file."""


class SubjectError(BadInputError):
    """The language model under study cannot be loaded or used."""


class SiteError(SubjectError):
    """The subject has no such place."""


class CorpusError(BadInputError):
    """No text, unreadable text, or too little of it."""


class SuiteError(BadInputError):
    """The suite file has unknown keys, values of the wrong type, or contradictions."""


class PolicyError(BadInputError):
    """The gate's policy has unknown keys, or rules that cannot be meant so."""


class RunStoreError(BadInputError):
    """The run directory cannot be written, is in use, or belongs to another run."""


class EndpointError(BadInputError):
    """The LLM's endpoint cannot be used: nothing that is asked there can succeed, whatever is tried again."""


class MetricFailedError(AutointerpError):
    """A metric could not be computed; the report, written all the same, says which and why."""

    exit_code = 4


class BudgetReachedError(AutointerpError):
    """The next call could cost more than is left; what was answered is kept, a larger budget goes on."""

    exit_code = 5


class InterruptedRunError(AutointerpError):
    """The user stopped the run; running it again goes on from where it was."""

    exit_code = 130
