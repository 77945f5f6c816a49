"""Explains a latent from highlighted excerpts and from what it does to the next token, side by side."""

from autointerp.explaining.highlighted import RULES, highlighted_excerpts
from autointerp.explaining.highlighting import CONVENTION
from autointerp.explaining.output_centric import OUTPUT_CONVENTION, effects
from autointerp.explaining.prompted import PromptedExplainer
from autointerp.explanation_records import LatentEvidence, Refusal
from autointerp.llm.requests import Message

__all__ = ["INPUT_OUTPUT_VERSION", "InputOutput"]

INPUT_OUTPUT_VERSION = "input_output-1"

_TASK = (
    "You find out what makes a unit of a language model fire. You see excerpts that the model read, from the "
    "unit's strongest firings to its weakest, and then what the unit does to the next token."
)
_SHOWN = (
    "1. we will meet «on» the morning of | 10\n"
    "2. the shop is closed «every» day but | 6\n"
    'Raised: " Monday", " Friday", " weekend", " Tuesday"\n\nWhat makes it fire?'
)
_SAID = "Explanation: Small words such as `on` or `every` after which a day of the week is likely to follow."
_THOUGHT = (
    "Highlighted are small words, and both stand where a day may follow; days are what is raised. So it is "
    "about what comes next.\n"
)


class InputOutput(PromptedExplainer):
    """What `highlighted` and `output_centric` show, together; where one of the two lacks, the other alone."""

    name = "input_output"
    prompt_version = INPUT_OUTPUT_VERSION

    def prefix(self) -> tuple[Message, ...]:
        """Instructions and one solved unit."""
        return self.solved(
            _TASK, CONVENTION, OUTPUT_CONVENTION, RULES, shown=_SHOWN, thought=_THOUGHT, said=_SAID
        )

    def data(self, evidence: LatentEvidence) -> str | Refusal:
        """The excerpts, then the lists."""
        excerpts = highlighted_excerpts(evidence, self.options.examples, self.options.passage_tokens)
        lists = effects(evidence)
        known = [part for part in (excerpts, lists) if isinstance(part, str)]
        if not known:
            return excerpts
        return "\n".join(known) + "\n\nWhat makes it fire?"
