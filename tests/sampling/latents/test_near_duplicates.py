import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from autointerp.sampling.latents.near_duplicates import CLUSTER_SCHEMA, clusters, signatures

NO_TEXT = 2**32 - 1
SCHEMA = {"document": pl.String, "signature": pl.Array(pl.UInt32, 64)}


def signed(documents) -> np.ndarray:
    tokens = np.concatenate([np.zeros(0), *map(np.asarray, documents)]).astype(np.int64)
    number = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    return signatures(tokens, number, len(documents))


def framed(signature, names=None) -> pl.DataFrame:
    names = [f"{number:05}" for number in range(len(signature))] if names is None else names
    return pl.DataFrame({"document": names, "signature": signature}, schema=SCHEMA)


def shingles(document) -> set:
    if len(document) < 5:
        return {tuple(document)} if len(document) else set()
    return {tuple(document[start : start + 5]) for start in range(len(document) - 4)}


def jaccard(one, other) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def overlapping(generator, share, size=120) -> tuple[list, list]:
    """Two documents that share their beginning."""
    common = generator.integers(0, 1000, size).tolist()
    own = [generator.integers(0, 1000, size).tolist() for _ in range(2)]
    cut = round(share * size)
    return common[:cut] + own[0][cut:], common[:cut] + own[1][cut:]


def random_signatures(generator, groups, count, noise) -> np.ndarray:
    base = generator.integers(0, 2**32, (groups, 64), dtype=np.uint32)[generator.integers(0, groups, count)]
    fresh = generator.integers(0, 2**32, (count, 64), dtype=np.uint32)
    return np.where(generator.random((count, 64)) < noise, fresh, base)


def test_equal_entries_estimate_the_similarity_without_bias_and_with_binomial_spread() -> None:
    generator = np.random.default_rng(0)
    pairs = [overlapping(generator, share) for share in generator.random(600)]
    exact = np.array([jaccard(*pair) for pair in pairs])
    found = signed([document for pair in pairs for document in pair]).reshape(-1, 2, 64)
    estimate = (found[:, 0] == found[:, 1]).mean(axis=1)
    z = (estimate - exact) / np.sqrt(np.maximum(exact * (1 - exact), 1e-3) / 64)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.8 < z.std() < 1.15
    assert abs(z).max() < 5


def test_entries_are_independent_minima_that_are_uniform() -> None:
    generator = np.random.default_rng(1)
    found = signed([generator.integers(0, 50_000, 104) for _ in range(2000)]) / 2**32
    # The smallest of 100 uniform numbers has mean 1/101, and its standard deviation is about that too.
    assert np.abs(found.mean(axis=0) - 1 / 101).max() < 5 / 101 / np.sqrt(2000)
    correlation = np.corrcoef(found.T)[~np.eye(64, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=8))
def test_documents_agree_wholly_where_their_sets_of_shingles_are_equal(documents) -> None:
    found = signed(documents)
    assert found.shape == (len(documents), 64)
    for one, first in zip(documents, found, strict=True):
        assert (first == NO_TEXT).all() == (not one)
        for other, second in zip(documents, found, strict=True):
            assert (first == second).all() == (shingles(one) == shingles(other))


def test_a_shingle_counts_once_and_a_set_that_grows_can_only_lower_entries() -> None:
    period = [3, 1, 4, 1, 5, 9, 2, 6]
    short, long = signed([period * 2, period * 50])
    assert (short == long).all()
    more = signed([period * 2 + [7, 7, 7]])[0]
    assert (more <= short).all() and (more < short).any()


def test_short_documents_are_one_shingle_of_their_own_length() -> None:
    found = signed([[1, 2, 3], [1, 2, 3], [1, 2, 3, 0], [1, 2, 4], [0, 1, 2, 3]])
    assert (found[0] == found[1]).all()
    for other in (2, 3, 4):
        assert not (found[0] == found[other]).any()


def test_a_document_is_signed_alike_whatever_is_signed_with_it() -> None:
    generator = np.random.default_rng(2)
    documents = [generator.integers(0, 9, size) for size in generator.integers(0, 40, 50)]
    whole = signed(documents)
    assert (
        np.concatenate([signed(documents[:7]), signed(documents[7:30]), signed(documents[30:])]) == whole
    ).all()
    assert (signed(documents[::-1])[::-1] == whole).all()


def test_no_documents_and_documents_without_tokens() -> None:
    assert signed([]).shape == (0, 64)
    assert signed([[]]).tolist() == [[NO_TEXT] * 64]
    found = signed([[], [1, 2], [], []])
    assert (found == NO_TEXT).all(axis=1).tolist() == [True, False, True, True]


def test_signatures_are_the_same_in_every_version() -> None:
    found = signed([range(100), [-1], [2**40, 5, 5, 5, 5, 5]])
    assert found[:, :3].tolist() == [
        [20391648, 39309801, 1412962],
        [3198545476, 1763901234, 3073638958],
        [623422584, 2125987991, 118137192],
    ]
    assert found.sum(dtype=np.uint64) == 223871807341


def test_text_of_similarity_above_seven_tenths_is_found_and_unlike_text_is_not() -> None:
    generator = np.random.default_rng(3)
    pairs = [overlapping(generator, share) for share in np.repeat([0.1, 0.25, 0.84, 0.9, 0.99], 60)]
    found = clusters(framed(signed([document for pair in pairs for document in pair])))
    joined = found["cluster"].to_numpy().reshape(-1, 2)
    is_joined = joined[:, 0] == joined[:, 1]
    similarity = np.array([jaccard(*pair) for pair in pairs])
    assert (similarity > 0.7).sum() > 120 and (similarity < 0.2).sum() > 100
    assert is_joined[similarity > 0.7].mean() > 0.99
    assert not is_joined[similarity < 0.2].any()
    assert found["cluster"].n_unique() == 600 - is_joined.sum()  # nothing else was joined


@pytest.mark.parametrize("least_similarity", [0.4, 0.5, 0.55, 0.9])
@pytest.mark.parametrize("noise", [0.2, 0.3, 0.45])
def test_clusters_are_the_components_that_dbscan_finds(least_similarity, noise) -> None:
    generator = np.random.default_rng(4)
    signature = random_signatures(generator, 80, 300, noise)
    found = clusters(framed(signature), least_similarity=least_similarity)
    # Every point is a core point, so that its clusters are connected components.
    oracle = DBSCAN(eps=1 - least_similarity + 1e-9, min_samples=1, metric="hamming").fit(
        signature.astype(float)
    )
    smallest = {label: f"{np.flatnonzero(oracle.labels_ == label)[0]:05}" for label in set(oracle.labels_)}
    assert found["cluster"].to_list() == [smallest[label] for label in oracle.labels_]
    assert found["document"].to_list() == [f"{number:05}" for number in range(300)]


def test_many_copies_are_one_cluster_and_do_not_hide_others() -> None:
    generator = np.random.default_rng(5)
    base = generator.integers(0, 2**32, (2, 64), dtype=np.uint32)
    owner = generator.integers(0, 2, 3000)
    fresh = generator.integers(0, 2**32, (3000, 64), dtype=np.uint32)
    found = clusters(framed(np.where(generator.random((3000, 64)) < 0.15, fresh, base[owner])))
    smallest = np.array([f"{np.flatnonzero(owner == side)[0]:05}" for side in (0, 1)])
    assert found["cluster"].to_list() == smallest[owner].tolist()


def test_in_a_crowded_bucket_the_smallest_id_and_eight_neighbours_are_looked_at() -> None:
    generator = np.random.default_rng(6)
    signature = generator.integers(0, 2**32, (40, 64), dtype=np.uint32)
    signature[:, :2] = 7  # one bucket holds all of them
    for one, other in ((0, 39), (10, 18), (20, 29)):
        # Half of all entries are equal, and yet no other band is.
        signature[other, 2::2] = signature[one, 2::2]
    cluster = clusters(framed(signature))["cluster"].to_list()
    assert cluster[39] == "00000"
    assert cluster[18] == "00010"
    assert cluster[29] == "00029"  # nine apart, and neither is the smallest: what is given up
    assert len(set(cluster)) == 38
    few = framed(signature[20:30][[0, 1, 2, 3, 5, 6, 7, 8, 9]])
    assert clusters(few)["cluster"].to_list()[-1] == "00000"  # among nine, all pairs are looked at


def test_the_order_of_rows_the_kind_of_column_and_repetition_do_not_matter() -> None:
    generator = np.random.default_rng(7)
    frame = framed(random_signatures(generator, 20, 100, 0.3))
    expected = clusters(frame)
    assert 1 < expected["cluster"].n_unique() < 100
    assert clusters(frame.sample(fraction=1, shuffle=True, seed=1)).equals(expected)
    assert clusters(pl.concat([frame, frame[20:60], frame[:3]])).equals(expected)
    assert clusters(frame.with_columns(pl.col("signature").cast(pl.List(pl.UInt32)))).equals(expected)
    assert clusters(frame.with_columns(chunk=pl.lit(1))).equals(expected)


def test_parts_of_a_document_are_one_document_of_all_their_shingles() -> None:
    generator = np.random.default_rng(8)
    whole = generator.integers(0, 1000, 200)
    signature = signed([whole[:102], whole[98:], whole])
    assert not (signature[0] == signature[2]).mean() > 0.7
    frame = framed(signature, ["a", "a", "b"])
    assert clusters(frame, least_similarity=1)["cluster"].to_list() == ["a", "a"]


def test_linked_documents_are_joined_however_unlike_and_need_no_signature() -> None:
    generator = np.random.default_rng(9)
    frame = framed(generator.integers(0, 2**32, (4, 64), dtype=np.uint32), list("bdfh"))
    linked = pl.DataFrame({"document": ["d", "h", "z", "q"], "other": ["f", "a", "z", "h"]})
    found = clusters(frame, linked=linked)
    assert found.rows() == [
        ("a", "a"), ("b", "b"), ("d", "d"), ("f", "d"), ("h", "a"), ("q", "a"), ("z", "z"),
    ]  # fmt: skip
    assert clusters(frame, linked=linked.reverse().select(document="other", other="document")).equals(found)
    assert clusters(frame, linked=linked.clear()).equals(clusters(frame))


def test_a_link_joins_the_near_duplicates_of_both() -> None:
    generator = np.random.default_rng(10)
    base = generator.integers(0, 2**32, (2, 64), dtype=np.uint32)
    frame = framed(np.repeat(base, 2, axis=0))
    linked = pl.DataFrame({"document": ["00001"], "other": ["00002"]})
    assert clusters(frame)["cluster"].to_list() == ["00000", "00000", "00002", "00002"]
    assert clusters(frame, linked=linked)["cluster"].to_list() == ["00000"] * 4


def test_documents_without_text_are_no_duplicates_of_each_other() -> None:
    frame = framed(signed([[], [], [1, 2], [1, 2]]))
    assert clusters(frame)["cluster"].to_list() == ["00000", "00001", "00002", "00002"]
    assert clusters(frame[:2])["cluster"].to_list() == ["00000", "00001"]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_documents(count) -> None:
    found = clusters(framed(np.full((count, 64), 5, dtype=np.uint32)))
    assert found.equals(
        pl.DataFrame(
            {"document": [f"{n:05}" for n in range(count)], "cluster": ["00000"] * count},
            schema=CLUSTER_SCHEMA,
        )
    )


@pytest.mark.parametrize("least_similarity", [0.0, -0.1, 1.01, float("nan")])
def test_a_similarity_that_is_none_is_refused(least_similarity) -> None:
    with pytest.raises(ValueError, match="least_similarity"):
        clusters(framed(np.zeros((1, 64), dtype=np.uint32)), least_similarity=least_similarity)
