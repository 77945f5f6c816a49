"""Simulation all at once: an LLM's expectation on every token of a passage, read from one echoed prompt."""

from collections.abc import Sequence

import numpy as np

from autointerp.explaining.highlighting import quoted
from autointerp.explanation_records import Explanation, Passage, Refusal, TokenPrediction
from autointerp.llm.language_model import Capability, ask_parsed
from autointerp.llm.requests import Reply, Request
from autointerp.simulating.answer_masses import expected_strength
from autointerp.simulating.asking import AskingSimulator, explanation_line
from autointerp.simulating.echo_alignment import covering_tokens

__all__ = ["ALTERNATIVES", "PROMPT_VERSION", "UNKNOWN", "AllAtOnceSimulator", "simulation_prompt"]

PROMPT_VERSION = "all_at_once-1"
ALTERNATIVES = 20
"""Asked for at each token; the most that servers give."""
UNKNOWN = "?"
"""Written where a strength is to be read. A word would be one token with the tab in front of it in several
tokenizers, and the alternatives to that are no numbers."""

_PREFIX = f"""\
Units inside a language model fire on some tokens of text. Below, each unit has an explanation of what it \
fires on, and then a text, one token a line. Behind a token stands how strongly the unit fires on it: a \
whole number from 0 (not at all, as on most tokens) to 9 (as strongly as it ever does), or {UNKNOWN} where \
that is not known.

Unit 1
Explanation: words for the weather
"The"\t{UNKNOWN}
" forecast"\t{UNKNOWN}
" says"\t{UNKNOWN}
" rain"\t9
" by"\t0
" noon"\t0
","\t0
" then"\t0
" a"\t0
" strong"\t2
" breeze"\t7
" over"\t0
" town"\t0

Unit 2
Explanation: the closing bracket of a list
"x"\t{UNKNOWN}
" ="\t{UNKNOWN}
" ["\t{UNKNOWN}
"1"\t0
","\t0
" "\t0
"2"\t0
"]"\t8
"\\n"\t1
"return"\t0
" x"\t0

Unit 3
"""


def simulation_prompt(explanation: Explanation, passage: Passage) -> tuple[str, list[int]]:
    """The prompt, and where in it the unknown strength of each token stands, in characters."""
    prompt = f"{_PREFIX}{explanation_line(explanation)}\n"
    places = []
    for token in passage.tokens:
        prompt += f"{quoted(token)}\t"
        places.append(len(prompt))
        prompt += f"{UNKNOWN}\n"
    return prompt, places


class AllAtOnceSimulator(AskingSimulator):
    """Bills et al. 2023, all tokens in one prompt: expectations are read where an unknown strength stands.

    Value of a token: sum(v p_v) / sum(p_v) over the strengths v among the alternatives there
    (`answer_masses.expected_strength`), NaN where none is. Asked is for 0 to 9, which are single tokens in
    every tokenizer. One token is generated and thrown away: some servers take a limit of 0 for no limit.
    """

    name = "all_at_once"
    prompt_version = PROMPT_VERSION
    needs: frozenset[Capability] = frozenset({"completions", "echo"})

    async def _simulate(self, explanation: Explanation, passage: Passage) -> TokenPrediction | Refusal:
        prompt, places = simulation_prompt(explanation, passage)
        request = Request(
            prompt=prompt,
            max_tokens=1,
            temperature=self.options.temperature,
            seed=self.options.seed,
            top_logprobs=ALTERNATIVES,
            echo=True,
            metric=self.options.metric or "explanation.simulation_correlation",
        )

        def parse(reply: Reply) -> TokenPrediction | Refusal:
            return _read(reply, passage, prompt, places)

        return await ask_parsed(self.model, request, parse, attempts=self.options.attempts)


def _read(reply: Reply, passage: Passage, prompt: str, places: Sequence[int]) -> TokenPrediction | Refusal:
    if not reply.logprobs:
        return Refusal("missing_logprobs", "the reply has no log-probabilities of the prompt")
    covering = covering_tokens(prompt, reply.logprobs, places)
    if not any(covered is not None and covered[0].top for covered in covering):
        return Refusal("missing_logprobs", "no alternatives where the strengths stand")
    values = np.full(len(places), np.nan)
    for place, covered in enumerate(covering):
        expected = expected_strength(covered[0], prefix=covered[1]) if covered is not None else None
        if expected is not None:
            values[place] = expected
    if np.isnan(values).all():
        return Refusal("unparsable", "no number is among the alternatives to any strength")
    return TokenPrediction(passage.id, values)
