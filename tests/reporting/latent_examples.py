"""A small but complete run directory with tables of latents, every number of it counted from its own text.

Latents of each dictionary: 0 is dead, 1 fires in one document only (undefined), 2 is live but not sampled,
the others are live and sampled; latent n > 2 fires on the n-th most common token and, more weakly, behind it.
The last one fires on every other token.
"""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import polars as pl
from report_examples import realistic_report

from autointerp.reporting.json_file import report_json
from autointerp.sampling.latents.tables import TABLES

CHECKPOINTS = ("topk-16-k2", "[bold]relu[/bold] :smile:")
FAILED = "broken"
LATENT_COUNT = 16
DEAD, UNDEFINED, UNSAMPLED, LIVE = 0, 1, 2, 5
BOS = 0
HOSTILE = ("\x1b[31m", "[bold]x[/bold]", ":smile:", "\u202e", " 日本語", "\r", "[/]")
SPLITS = ("explain", "validate", "score")
FIRING_SAMPLERS = ("uniform", "quantiles", "top", "importance")
SILENT_SAMPLERS = ("silent", "same_token", "neighbours", "similar")
STRATA = 3
RATIO = 1.01 / 0.99

SOURCE = '''
def scan(text, *, start=0):
    """Find what stands between the brackets."""
    for index, character in enumerate(text[start:]):
        if character in "([{":
            stack.append((index, character))
        elif character in ")]}":
            if not stack:
                raise ValueError(f"nothing is open at {index}")
            begin, opener = stack.pop()
            yield begin, index
    return None


class Reader:
    """Reads a file line by line, and keeps what it has seen."""

    def __init__(self, path, encoding="utf-8"):
        self.path = path
        self.encoding = encoding
        self.lines = []

    def read(self):
        with open(self.path, encoding=self.encoding) as file:
            self.lines = [line.rstrip() for line in file]
        return self.lines
'''


@dataclasses.dataclass
class Run:
    """What was written, for oracles: `tables` by name."""

    folder: object
    tables: dict

    def rows(self, name, **equal):
        return self.tables[name].filter(*(pl.col(key) == value for key, value in equal.items()))

    def rewrite(self, name, frame):
        frame.write_parquet(self.folder / "latents" / f"{name}.parquet")


def texts_and_documents(*, document_count=18, length=66, seed=0):
    """The text of each token id, and documents as lists of ids."""
    rng = np.random.default_rng(seed)
    pieces = re.findall(r" ?\w+|\n *| ?[^\w\s]+| +", SOURCE)
    pieces += [piece for piece in HOSTILE for _ in range(2)]
    vocabulary = ["<|bos|>", *[text for text, _ in Counter(pieces).most_common()]]
    number = {text: index for index, text in enumerate(vocabulary)}
    documents = []
    for _ in range(document_count):
        start = int(rng.integers(len(pieces)))
        documents.append([number[pieces[(start + step) % len(pieces)]] for step in range(length)])
    return vocabulary, documents


def make_contexts(documents, *, context_length=34):
    rows = []
    text_length = context_length - 1
    for index, document in enumerate(documents):
        for start in range(0, len(document), text_length):
            rows.append(
                {
                    "context": 1000 + len(rows) * 7,
                    "document": f"document-{index}",
                    "cluster": f"document-{index}",
                    "split": SPLITS[index % 3],
                    "start": start,
                    "first_scored": 1,
                    "tokens": [BOS, *document[start : start + text_length]],
                }
            )
    return rows


def firings_of(latent, contexts, *, scale):
    """(context row, position) -> value."""
    found = {}
    for number, row in enumerate(contexts):
        for position in range(1, len(row["tokens"])):
            token = row["tokens"][position]
            is_here = (
                (latent > 1 and token == latent)
                or (latent == 1 and row["document"] == "document-3" and token == 4)
                or (latent == 15 and position % 2)
            )
            if latent != DEAD and is_here:
                found[number, position] = scale * (0.5 + (number * 37 + position * 11) % 101 / 40)
                if latent > 2 and position + 1 < len(row["tokens"]):
                    found.setdefault((number, position + 1), scale * 0.1)
    return found


def write_run(folder, *, checkpoints=CHECKPOINTS, with_report=True, seed=0):
    """Write the run and say what was written."""
    vocabulary, documents = texts_and_documents(seed=seed)
    contexts = make_contexts(documents)
    rows = {name: [] for name in TABLES}
    rows["contexts"] = contexts
    rows["vocabulary"] = [{"token": index, "text": text} for index, text in enumerate(vocabulary)]
    for number, checkpoint in enumerate(checkpoints):
        add_dictionary(rows, checkpoint, contexts, scale=1.5 + number, vocabulary=vocabulary)
    failed = {"checkpoint": FAILED, "status": "failed", "reason": "its weights are \x1b[31m no numbers"}
    rows["coverage"].append(dict.fromkeys(TABLES["coverage"]) | failed)
    tables = {name: pl.DataFrame(found, schema=TABLES[name]) for name, found in rows.items()}
    (folder / "latents").mkdir(parents=True)
    for name, frame in tables.items():
        frame.write_parquet(folder / "latents" / f"{name}.parquet")
    if with_report:
        (folder / "report.json").write_text(report_json(report_of(checkpoints)), encoding="utf-8")
    return Run(folder, tables)


def report_of(checkpoints):
    """A report in which the second dictionary is a null."""
    report = realistic_report()
    some = report.checkpoints[0]
    summaries = tuple(
        dataclasses.replace(some, name=name, role="null" if number else "checkpoint")
        for number, name in enumerate(checkpoints)
    )
    return dataclasses.replace(report, checkpoints=summaries, results=(), comparisons=())


def add_dictionary(rows, checkpoint, contexts, *, scale, vocabulary):
    own = {name: [] for name in TABLES}
    firings = {latent: firings_of(latent, contexts, scale=scale) for latent in range(LATENT_COUNT)}
    for latent, found in firings.items():
        own["latents"].append(latent_row(latent, found, contexts))
        if latent in (DEAD, UNSAMPLED):
            continue
        own["histograms"] += histogram_rows(latent, found)
        own["tokens"] += token_rows(latent, found, contexts)
        own["neighbours"] += neighbour_rows(latent, firings)
        own["promoted"] += [
            {"latent": latent, "sign": sign, "rank": rank, "token": (latent * 5 + rank * 3) % len(vocabulary)}
            | {"logit": (1 if sign == "promoted" else -1) * (3.0 - rank * 0.4)}
            for sign in ("promoted", "demoted")
            for rank in range(5)
        ]
        if latent != UNDEFINED:
            own["examples"] += example_rows(latent, found, contexts)
    own["coverage"].append(coverage_row(own["latents"]))
    for name, found in own.items():
        rows[name] += [{"checkpoint": checkpoint} | row for row in found]


def latent_row(latent, found, contexts):
    values = np.array(list(found.values()))
    of_split = {
        split: len({contexts[n]["document"] for n, _ in found if contexts[n]["split"] == split})
        for split in SPLITS
    }
    status = "dead" if not found else "live" if min(of_split.values()) >= 2 else "undefined"
    token_count = sum(len(row["tokens"]) - 1 for row in contexts)
    document_count = len({row["document"] for row in contexts})
    documents_fired = len({contexts[number]["document"] for number, _ in found})
    is_sampled = latent not in (DEAD, UNSAMPLED)
    first, last = (min(found), max(found)) if found else ((None, None), (None, None))
    quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]) if is_sampled else [None] * 5
    return {
        "latent": latent,
        "status": status,
        "reason": "fires in too few documents for three splits" if status == "undefined" else "",
        "is_ultra_dense": len(found) > 0.1 * token_count,
        "is_sampled": is_sampled,
        "sampling_weight": 15 / 14 if is_sampled else None,
        "stratum": "",
        "tokens_fired": len(found),
        "density": len(found) / token_count,
        "documents_fired": documents_fired,
        "document_density": documents_fired / document_count,
        **{f"{split}_documents": count for split, count in of_split.items()},
        "mass": float(values.sum()),
        "mean": float(values.mean()) if found else None,
        "maximum": float(values.max()) if found else None,
        "first_context": None if first[0] is None else contexts[first[0]]["context"],
        "first_position": first[1],
        "last_context": None if last[0] is None else contexts[last[0]]["context"],
        "last_position": last[1],
        **dict(zip(("q05", "q25", "q50", "q75", "q95"), quantiles, strict=True)),
    }


def peaks_of(found):
    best = {}
    for (number, position), value in sorted(found.items()):
        if number not in best or value > best[number][1]:
            best[number] = (position, value)
    return best


def histogram_rows(latent, found):
    units = {"firing": found.values(), "peak": [value for _, value in peaks_of(found).values()]}
    return [
        {"latent": latent, "unit": unit, "bin": index, "count": count}
        for unit, values in units.items()
        for index, count in Counter(int(np.ceil(np.log(v) / np.log(RATIO))) for v in values).items()
    ]


def token_rows(latent, found, contexts):
    peaks = peaks_of(found)
    rows = []
    for place, offset in {"before": -1, "at": 0, "after": 1}.items():
        counted = Counter(
            contexts[number]["tokens"][position + offset]
            for number, (position, _) in peaks.items()
            if 1 <= position + offset < len(contexts[number]["tokens"])
        )
        for rank, (token, count) in enumerate(counted.most_common(10)):
            row = {"latent": latent, "place": place, "rank": rank, "token": token, "count": count}
            rows.append(row | {"share": count / len(peaks), "undercount": int(place == "before")})
    return rows


def neighbour_rows(latent, firings):
    own = firings[latent]
    rows = [
        {
            "latent": latent,
            "kind": "decoder_cosine",
            "rank": rank,
            "other": (latent + 3 + rank) % LATENT_COUNT,
        }
        | {"value": 0.9 - rank / 10, "lift": None}
        for rank in range(4)
    ]
    shares = {other: len(own.keys() & found.keys()) / len(own) for other, found in firings.items()}
    del shares[latent]
    for rank, other in enumerate(sorted(shares, key=lambda other: -shares[other])[:3]):
        row = {"latent": latent, "kind": "co_firing", "rank": rank, "other": other, "value": shares[other]}
        rows.append(row | {"lift": 3.21})
    return rows


def example_rows(latent, found, contexts):
    peaks = peaks_of(found)
    rows = []
    for split in SPLITS:
        fired = [number for number in peaks if contexts[number]["split"] == split]
        silent = [n for n in range(len(contexts)) if n not in peaks and contexts[n]["split"] == split]
        by_value = sorted(fired, key=lambda number: -peaks[number][1])
        strata = {
            stratum: part.tolist() for stratum, part in enumerate(np.array_split(by_value[::-1], STRATA))
        }
        drawn = {("top", 0): by_value[:4], ("uniform", 0): fired[:4], ("importance", 0): fired[1:5]}
        drawn |= {("quantiles", stratum): part[:2] for stratum, part in strata.items()}
        drawn |= {(name, 0): silent[:3] for name in SILENT_SAMPLERS if name != "same_token" or latent != LIVE}
        for (sampler, stratum), numbers in drawn.items():
            for rank, number in enumerate(numbers):
                focus, value = peaks.get(number, (3, None))
                end = len(contexts[number]["tokens"])
                at = [position for position in range(1, end) if (number, position) in found]
                rows.append(
                    {
                        "latent": latent,
                        "sampler": sampler,
                        "split": split,
                        "stratum": stratum,
                        "rank": rank,
                        "context": contexts[number]["context"],
                        "focus": focus,
                        "value": value,
                        "begin": 1,
                        "end": end,
                        "fired": at,
                        "activations": [found[number, position] for position in at],
                        "population": len(fired) if value is not None else len(silent),
                        "weight": None if sampler == "top" else 1.5,
                    }
                )
    return rows


def coverage_row(latents):
    live = [row for row in latents if row["tokens_fired"]]
    scorable = [row for row in latents if row["status"] == "live"]
    sampled = [row for row in latents if row["is_sampled"]]
    return {
        "status": "measured",
        "reason": "",
        "latent_count": len(latents),
        "live_count": len(live),
        "scorable_count": len(scorable),
        "ultra_dense_count": sum(row["is_ultra_dense"] for row in latents),
        "sampled_count": len(sampled),
        "sampled_scorable_count": sum(row["status"] == "live" for row in sampled),
        "scorable_fraction": len(scorable) / len(latents),
        "scorable_mass_fraction": sum(row["mass"] for row in scorable) / sum(row["mass"] for row in latents),
        "dropped_for_leaks": 3,
    }


def without_null(value):
    """Whether a JSON value holds no null at any depth."""
    return "null" not in re.findall(r"[a-z]+", re.sub(r'"(\\.|[^"\\])*"', '""', json.dumps(value)))
