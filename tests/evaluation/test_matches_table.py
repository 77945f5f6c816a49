"""How often matched latents fire together, against a count by hand from the files of a run."""

import numpy as np
import polars as pl

from autointerp.evaluation.co_firing import co_firing, read_firings
from autointerp.evaluation.matches_table import with_co_firing
from autointerp.sampling.latents.tables import MATCHES
from autointerp.sampling.spill import slug

NAMES = ("one", "other <b>")


def write_firings(folder, *, seed=0):
    """Two chunks of two dictionaries; {name: {latent: {(context, position)}}}."""
    rng = np.random.default_rng(seed)
    (folder / "chunks").mkdir(parents=True)
    fired = {name: {} for name in NAMES}
    for chunk in range(2):
        ids = [100 * chunk + row * 7 for row in range(5)]
        contexts = pl.DataFrame({"context": ids}, schema={"context": pl.UInt64})
        contexts.write_parquet(folder / "chunks" / f"contexts~{chunk}.parquet")
        for name in NAMES:
            rows = sorted(
                {
                    (int(a), int(b), int(c))
                    for a, b, c in rng.integers([4, 5, 6], size=(90, 3), endpoint=False)
                }
            )
            for latent, row, position in rows:
                fired[name].setdefault(latent, set()).add((ids[row], position))
            schema = {"latent": pl.UInt32, "row": pl.UInt32, "position": pl.UInt32}
            pl.DataFrame(rows, schema=schema, orient="row").write_parquet(
                folder / "chunks" / f"firings~{slug(name)}~{chunk}.parquet"
            )
    return fired


def share(one, other):
    return len(one & other) / len(one | other)


def test_firing_together_is_counted_over_tokens_on_which_either_fires(tmp_path):
    fired = write_firings(tmp_path)
    frames = [read_firings(tmp_path, name, range(4)) for name in NAMES]
    pairs = [(0, 3), (2, 2), (0, 1), (9, 9)]
    found = co_firing(*frames, pairs)
    assert found[:3] == [share(fired[NAMES[0]][one], fired[NAMES[1]][other]) for one, other in pairs[:3]]
    assert found[3] is None
    assert co_firing(*frames, []) == []


def test_the_table_has_it_of_latents_that_are_alike_and_keeps_its_order(tmp_path):
    fired = write_firings(tmp_path)
    rows = [
        (NAMES[0], 2, NAMES[1], 1, 0.9, [1], None),
        (NAMES[0], 0, NAMES[1], 3, 0.2, [], None),
        (NAMES[1], 3, NAMES[0], 0, 0.8, [], None),
    ]
    table = pl.DataFrame(rows, schema=MATCHES, orient="row")
    found = with_co_firing(table, tmp_path)
    assert found.drop("co_firing").equals(table.drop("co_firing"))
    assert found["co_firing"].to_list() == [
        share(fired[NAMES[0]][2], fired[NAMES[1]][1]),
        None,
        share(fired[NAMES[1]][3], fired[NAMES[0]][0]),
    ]


def test_without_firings_there_is_no_such_share(tmp_path):
    table = pl.DataFrame([(NAMES[0], 2, NAMES[1], 1, 0.9, [1], None)], schema=MATCHES, orient="row")
    assert with_co_firing(table, tmp_path).equals(table)
    assert with_co_firing(table.clear(), tmp_path).is_empty()
