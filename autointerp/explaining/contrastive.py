"""Explains a latent from excerpts on which it fires beside similar ones on which it does not."""

from autointerp.explaining.choosing import firing_examples, silent_examples
from autointerp.explaining.highlighted import RULES
from autointerp.explaining.highlighting import CONVENTION, excerpt, highlighted_line, plain_line
from autointerp.explaining.prompted import PromptedExplainer, excerpt_lines
from autointerp.explanation_records import LatentEvidence, Refusal
from autointerp.llm.requests import Message

__all__ = ["CONTRASTIVE_VERSION", "Contrastive"]

CONTRASTIVE_VERSION = "contrastive-1"

_TASK = (
    "You find out what makes a unit of a language model fire. You see excerpts that the model read. In those "
    "numbered +1, +2, ... the unit fires, strongest first. In those numbered -1, -2, ... it fires nowhere, "
    "though many hold the same words or are about the same things: what your sentence says must be true of "
    "the first and false of the second."
)
_SHOWN = (
    "+1. They moved to «Paris» in May | 10\n"
    "+2. born in «Rome», he never | 8\n"
    "-1. Paris Hilton sang at the\n"
    "-2. the Rome treaty was signed\n\nWhat makes it fire, and not there?"
)
_SAID = "Explanation: Names of cities in which somebody is, after `in` or `to`; not inside other names."
_THOUGHT = (
    "All highlighted are cities, but -1 and -2 hold the same names. There they are part of another name; "
    "where it fires, `in` or `to` stands before.\n"
)


class Contrastive(PromptedExplainer):
    """Half of the excerpts are firings of all strengths, half are silent, the hard ones first.

    Silent ones come from `choosing.HARD_SAMPLERS` in turn; with none there is nothing to set beside, which
    is a refusal.
    """

    name = "contrastive"
    prompt_version = CONTRASTIVE_VERSION

    def prefix(self) -> tuple[Message, ...]:
        """Instructions and one solved unit."""
        return self.solved(_TASK, CONVENTION, RULES, shown=_SHOWN, thought=_THOUGHT, said=_SAID)

    def data(self, evidence: LatentEvidence) -> str | Refusal:
        """The excerpts, firing ones first."""
        length = self.options.passage_tokens
        half = max(1, self.options.examples // 2)
        firing = firing_examples(evidence, half)
        silent = silent_examples(evidence, half)
        if not firing or not silent:
            kind = "fires" if not firing else "is silent"
            return Refusal("no_explanation", f"no context of the explain split in which it {kind}")
        above = [highlighted_line(excerpt(example, length), evidence.maximum) for example in firing]
        below = [plain_line(excerpt(example, length).tokens) for example in silent]
        return (
            f"{excerpt_lines(above, sign='+')}\n{excerpt_lines(below, sign='-')}"
            "\n\nWhat makes it fire, and not there?"
        )
