import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.errors import CorpusError
from autointerp.sampling.contexts import ContextOptions, corpus_chunks, describe_contexts, split_of
from autointerp.sampling.corpus import document_of
from autointerp.sampling.document_tokens import DocumentEncoder, utf8_byte_counts
from autointerp.testing.tiny_subject import tiny_subject, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BOS, EOS = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
WORDS = ["the", "thing", "and", "otter", "in", "rain", "é", "🙂", "12345", "\n\t", "def", "f(x):", "return"]


class Corpus:
    """Documents that count how many of them were pulled."""

    def __init__(self, texts):
        self.all = [document_of(text, name=str(number)) for number, text in enumerate(texts)]
        self.pulled = 0

    def documents(self):
        for document in self.all:
            self.pulled += 1
            yield document


def random_texts(count, seed=0, longest=60):
    chooser = random.Random(seed)
    return [
        f"{number} " + " ".join(chooser.choices(WORDS, k=chooser.randint(0, longest)))
        for number in range(count)
    ]


def chunks_of(corpus, options, **limits):
    corpus = corpus if hasattr(corpus, "documents") else Corpus(corpus)
    limits = {"batch_tokens": 128, "chunk_tokens": 300} | limits
    return list(corpus_chunks(corpus, TOKENIZER, options, **limits))


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def rows_of(chunks):
    """Every context as (chunk, tokens, document ids or None, scored, bytes), padding taken off."""
    for chunk in chunks:
        for batch in chunk.batches:
            columns = (
                batch.tokens,
                batch.attention_mask,
                batch.document_index,
                batch.is_scored,
                batch.byte_count,
            )
            for tokens, mask, index, scored, byte_count in zip(*(c.tolist() for c in columns), strict=True):
                length = sum(mask)
                assert mask == [True] * length + [False] * (len(mask) - length)
                owners = [None if place < 0 else batch.document_ids[place] for place in index]
                assert not any(scored[length:]) and not any(byte_count[length:])
                assert owners[length:] == [None] * (len(mask) - length)
                yield chunk, tokens[:length], owners[:length], scored[:length], byte_count[:length]


def by_hand(text, options):
    """Contexts of one document, cut the slow way: the oracle."""
    ids = ids_of(text)
    room = options.context_length - options.prepend_bos
    pieces = [ids[start : start + room] for start in range(0, len(ids), room)]
    pieces = pieces[: options.max_contexts_per_document]
    lead = [BOS] if options.prepend_bos else []
    kept = [lead + piece for piece in pieces if not options.drop_remainder or len(piece) == room]
    return [context for context in kept if len(context) >= 2]


VARIANTS = [
    ContextOptions(
        context_length=length, prepend_bos=bos, drop_remainder=drop, max_contexts_per_document=most
    )
    for length, bos, drop, most in itertools.product((2, 3, 16), (True, False), (True, False), (None, 2))
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_documents_become_the_contexts_that_cutting_by_hand_gives(options):
    texts = random_texts(12)
    chunks = chunks_of(texts, options)
    got = sorted(tokens for _, tokens, *_ in rows_of(chunks))
    assert got == sorted(context for text in texts for context in by_hand(text, options))
    for _, tokens, owners, scored, _ in rows_of(chunks):
        lead = int(options.prepend_bos)
        assert len(set(owners[lead:])) == 1
        assert owners[:lead] == [None] * lead
        assert scored == [False] * lead + [True] * (len(tokens) - lead)


@pytest.mark.parametrize("packing", ["document", "packed"])
@pytest.mark.parametrize("length", [3, 16, 50])
def test_every_token_of_every_document_appears_once_with_its_documents_id(packing, length):
    texts = random_texts(15, seed=2)
    options = ContextOptions(context_length=length, packing=packing)
    chunks = chunks_of(texts, options, chunk_tokens=200)
    collected = {}
    for _, tokens, owners, scored, byte_count in rows_of(chunks):
        for token, owner, is_scored, size in zip(tokens, owners, scored, byte_count, strict=True):
            assert is_scored == (owner is not None)
            if is_scored:
                collected.setdefault(owner, []).append((token, size))
    for text in texts:
        got = collected.pop(document_of(text).id)
        # Batches are sorted by length, so the order of a document's contexts is not kept; its tokens are.
        assert sorted(token for token, _ in got) == sorted(ids_of(text))
        assert sum(size for _, size in got) == len(text.encode())
    assert not collected
    assert sum(chunk.dropped_token_count for chunk in chunks) == 0


def test_packed_contexts_are_bundles_of_documents_joined_by_eos():
    texts = random_texts(9, seed=3)
    options = ContextOptions(context_length=8, packing="packed")
    # A limit that only one bundle meets.
    chunks = chunks_of(texts, options, chunk_tokens=1, batch_tokens=10**6)
    assert len(chunks) > 1
    by_id = {document_of(text).id: text for text in texts}
    for chunk in chunks:
        stream = ids_of(by_id[chunk.document_ids[0]])
        for document_id in chunk.document_ids[1:]:
            assert len(stream) < 16 * 8
            stream += [EOS, *ids_of(by_id[document_id])]
        assert len(stream) >= 16 * 8 or chunk is chunks[-1]
        rows = [tokens for _, tokens, *_ in rows_of([chunk])]
        assert all(tokens[0] == BOS for tokens in rows)
        assert list(itertools.chain.from_iterable(tokens[1:] for tokens in rows)) == stream


@pytest.mark.parametrize("max_tokens", [None, 700])
@pytest.mark.parametrize("packing", ["document", "packed"])
def test_the_size_of_chunks_changes_no_context(packing, max_tokens):
    texts = random_texts(40, seed=7)
    options = ContextOptions(context_length=8, packing=packing)
    found, numbers = [], []
    for chunk_tokens in (128, 400, 4000):
        chunks = chunks_of(texts, options, chunk_tokens=chunk_tokens, max_tokens=max_tokens)
        found.append(sorted((tokens, list(map(str, owners))) for _, tokens, owners, *_ in rows_of(chunks)))
        numbers.append(len(chunks))
    assert found[0] == found[1] == found[2]
    assert len(set(numbers)) == 3


def test_a_document_lies_wholly_inside_one_chunk_and_all_are_there_in_order():
    texts = random_texts(30, seed=4)
    for packing in ("document", "packed"):
        chunks = chunks_of(texts, ContextOptions(context_length=8, packing=packing), chunk_tokens=120)
        listed = [document_id for chunk in chunks for document_id in chunk.document_ids]
        assert listed == [document_of(text).id for text in texts]
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
        assert len({chunk.sha256 for chunk in chunks}) == len(chunks)


def test_chunks_are_as_full_as_their_limit_allows():
    options = ContextOptions(context_length=8)
    texts = random_texts(40, seed=5)
    chunks = chunks_of(texts, options, chunk_tokens=150)
    for chunk in chunks:
        assert chunk.token_count == sum(int(batch.attention_mask.sum()) for batch in chunk.batches)
        assert chunk.token_count <= 150 or len(chunk.document_ids) == 1
    for one, following in itertools.pairwise(chunks):
        first = len(ids_of(texts[int(document_number(following, texts))]))
        assert one.token_count + first + first // 7 + 3 > 150


def test_chunks_of_packed_bundles_are_as_full_as_their_limit_allows():
    options = ContextOptions(context_length=8, packing="packed")
    texts = random_texts(60, seed=5)
    bundles = [chunk.token_count for chunk in chunks_of(texts, options, chunk_tokens=1)]
    limit = 2 * max(bundles) + 10
    expected = [0]
    for token_count in bundles:
        if expected[-1] + token_count > limit:
            expected.append(0)
        expected[-1] += token_count
    assert [chunk.token_count for chunk in chunks_of(texts, options, chunk_tokens=limit)] == expected
    assert len(expected) > 1


def document_number(chunk, texts):
    return [document_of(text).id for text in texts].index(chunk.document_ids[0])


def test_a_document_larger_than_a_chunk_stands_alone():
    chunks = chunks_of(["small", "the " * 200, "little"], ContextOptions(context_length=8), chunk_tokens=50)
    assert [len(chunk.document_ids) for chunk in chunks] == [1, 1, 1]
    assert chunks[1].token_count > 50


@pytest.mark.parametrize("batch_tokens", [1, 16, 40, 1000])
def test_batches_stay_within_their_limit_and_waste_little(batch_tokens):
    chunks = chunks_of(random_texts(40), ContextOptions(context_length=16), batch_tokens=batch_tokens)
    for chunk in chunks:
        widths = [batch.tokens.shape[1] for batch in chunk.batches]
        assert widths == sorted(widths, reverse=True)
        for batch in chunk.batches:
            assert batch.tokens.numel() <= batch_tokens or batch.tokens.shape[0] == 1
            assert batch.attention_mask[0].all()
            assert {column.shape for column in (batch.attention_mask, batch.is_scored, batch.byte_count)} == {
                batch.tokens.shape
            }


def test_what_is_found_does_not_depend_on_the_size_of_batches():
    texts = random_texts(20)
    options = ContextOptions(context_length=16)
    small, large = (
        sorted(row[1] for row in rows_of(chunks_of(texts, options, batch_tokens=size))) for size in (1, 10**6)
    )
    assert small == large


def test_chunks_are_the_same_every_time():
    for options in (ContextOptions(context_length=9), ContextOptions(context_length=9, packing="packed")):
        first, again = (chunks_of(random_texts(20), options) for _ in range(2))
        assert [chunk.sha256 for chunk in first] == [chunk.sha256 for chunk in again]
        for one, other in zip(first, again, strict=True):
            assert all(
                torch.equal(a.tokens, b.tokens) for a, b in zip(one.batches, other.batches, strict=True)
            )


def test_documents_are_pulled_one_chunk_at_a_time():
    corpus = Corpus(random_texts(200, longest=20))
    chunks = corpus_chunks(
        corpus, TOKENIZER, ContextOptions(context_length=16), batch_tokens=64, chunk_tokens=200
    )
    assert corpus.pulled == 0
    held = 0
    for chunk, _ in zip(chunks, range(3), strict=False):
        held += len(chunk.document_ids)
        assert corpus.pulled == held + 1


@pytest.mark.parametrize("packing", ["document", "packed"])
@pytest.mark.parametrize("max_tokens", [17, 100, 257, 1000])
def test_no_more_tokens_than_allowed_and_nearly_as_many(packing, max_tokens):
    corpus = Corpus(random_texts(60, seed=6))
    chunks = chunks_of(corpus, ContextOptions(context_length=16, packing=packing), max_tokens=max_tokens)
    assert max_tokens - 16 < sum(chunk.token_count for chunk in chunks) <= max_tokens
    assert corpus.pulled < 60
    for chunk in chunks:
        owners = {owner for row in rows_of([chunk]) for owner in row[2] if owner}
        assert owners == set(chunk.document_ids)


def test_what_is_dropped_is_counted():
    text = "the " * 50
    count = len(ids_of(text))
    (limited,) = chunks_of([text], ContextOptions(context_length=8, max_contexts_per_document=2))
    assert limited.dropped_token_count == count - 14
    (cut,) = chunks_of([text], ContextOptions(context_length=8, drop_remainder=True))
    assert cut.dropped_token_count == count % 7
    (stopped,) = chunks_of([text], ContextOptions(context_length=8), max_tokens=20)
    assert stopped.dropped_token_count == count - 14


# ---- splits -----------------------------------------------------------------------------------------


def test_splits_share_no_document_and_miss_none():
    texts = random_texts(300, longest=3)
    sides = {}
    for side in ("calibration", "evaluation", None):
        chunks = chunks_of(texts, ContextOptions(context_length=8), split=side, calibration_fraction=0.3)
        sides[side] = [document_id for chunk in chunks for document_id in chunk.document_ids]
    assert not set(sides["calibration"]) & set(sides["evaluation"])
    assert sorted(sides["calibration"] + sides["evaluation"]) == sorted(sides[None])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_a_split_has_about_its_share_of_documents(fraction):
    count = 4000
    chosen = [
        split_of(document_of(str(number)).id, calibration_fraction=fraction) == "calibration"
        for number in range(count)
    ]
    # Four standard deviations of a binomial share.
    assert abs(np.mean(chosen) - fraction) <= 4 * np.sqrt(fraction * (1 - fraction) / count)


def test_a_documents_side_is_fixed_for_all_time():
    sides = [split_of(f"{number:016x}", calibration_fraction=0.5)[0] for number in range(16)]
    assert "".join(sides) == "eccceceececeecec"


def test_growing_the_calibration_share_moves_no_document_back():
    ids = [document_of(str(number)).id for number in range(500)]
    few, many = (
        {one for one in ids if split_of(one, calibration_fraction=share) == "calibration"}
        for share in (0.1, 0.4)
    )
    assert few < many


# ---- special tokens ---------------------------------------------------------------------------------


def test_special_tokens_spelled_out_in_a_document_are_ordinary_text():
    text = "a<|endoftext|>b<|bos|><|pad|>"
    (chunk,) = chunks_of([text], ContextOptions(context_length=64))
    ((_, tokens, _, scored, byte_count),) = rows_of([chunk])
    assert tokens[0] == BOS
    assert not {BOS, EOS, TOKENIZER.pad_token_id} & set(tokens[1:])
    assert TOKENIZER.decode(tokens[1:]) == text
    assert sum(scored) == len(tokens) - 1
    assert sum(byte_count) == len(text)


def test_special_tokens_are_parsed_where_asked_for():
    (chunk,) = chunks_of(["a<|endoftext|>b"], ContextOptions(context_length=64, special_tokens="parse"))
    ((_, tokens, *_),) = rows_of([chunk])
    assert tokens.count(EOS) == 1
    assert TOKENIZER("a<|endoftext|>", add_special_tokens=False)["input_ids"][-1] == EOS


def test_eos_stands_in_for_a_missing_bos_and_neither_is_refused():
    without_bos = tiny_tokenizer()
    without_bos.bos_token = None
    assert describe_contexts(ContextOptions(), without_bos)["bos_token_id"] == EOS
    without_bos.eos_token = None
    limits = {"batch_tokens": 64, "chunk_tokens": 64}
    with pytest.raises(CorpusError, match="prepend_bos = false"):
        next(corpus_chunks(Corpus(["hello"]), without_bos, ContextOptions(), **limits))
    bare = ContextOptions(prepend_bos=False)
    assert next(corpus_chunks(Corpus(["hello"]), without_bos, bare, **limits)).token_count == len(
        ids_of("hello")
    )
    packed = ContextOptions(prepend_bos=False, packing="packed")
    with pytest.raises(CorpusError, match="packing"):
        next(corpus_chunks(Corpus(["hello"]), without_bos, packed, **limits))


def test_choices_are_reported_with_their_ids():
    described = describe_contexts(ContextOptions(packing="packed"), TOKENIZER)
    assert described["bos_token"] == "<|bos|>"
    assert (described["bos_token_id"], described["joining_token_id"]) == (BOS, EOS)
    assert described["context_length"] == 64


# ---- chat template ----------------------------------------------------------------------------------

TEMPLATE = "{{ bos_token }}User: {{ messages[0]['content'] }}<|endoftext|>Bot:"


def templated(template=TEMPLATE):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_chat_template_stands_around_the_document_unscored():
    options = ContextOptions(context_length=64, chat_template=True)
    text = "hi <|endoftext|>"
    (chunk,) = corpus_chunks(Corpus([text]), templated(), options, batch_tokens=64, chunk_tokens=64)
    ((_, tokens, _, scored, byte_count),) = rows_of([chunk])
    assert TOKENIZER.decode(tokens) == f"<|bos|>User: {text}<|endoftext|>Bot:"
    assert tokens.count(BOS) == tokens.count(EOS) == 1
    assert TOKENIZER.decode([t for t, is_text in zip(tokens, scored, strict=True) if is_text]) == text
    assert sum(byte_count) == len(text)


@pytest.mark.parametrize(
    "template", [None, "no document", "{{ messages[3]['content'] }}", "{{ raise_exception('x') }}"]
)
def test_a_template_that_cannot_hold_a_document_is_refused(template):
    options = ContextOptions(chat_template=True)
    with pytest.raises(CorpusError, match="chat_template = false"):
        next(corpus_chunks(Corpus(["hi"]), templated(template), options, batch_tokens=64, chunk_tokens=64))


# ---- bytes ------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_bytes_of_the_tokens_sum_up_to_those_of_the_text(text):
    encoded = DocumentEncoder(TOKENIZER).encode(document_of(text))
    assert encoded.byte_count.sum() == len(text.encode())
    assert (encoded.byte_count >= 0).all()


def test_bytes_of_a_token_are_those_of_its_characters():
    text = "the é🙂x"
    assert TOKENIZER.convert_ids_to_tokens(ids_of(text))[:2] == ["the", "Ġ"]
    got = DocumentEncoder(TOKENIZER).encode(document_of(text)).byte_count.tolist()
    # "the", " ", two tokens for é, four for the face, "x"
    assert got == [3, 1, 2, 0, 4, 0, 0, 0, 1]


def test_characters_that_no_token_covers_belong_to_the_next_one():
    assert utf8_byte_counts("  ab  c ", np.array([4, 7])).tolist() == [4, 4]
    assert utf8_byte_counts("", np.array([], dtype=np.int64)).tolist() == []


# ---- faults and fit ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"context_length": 1},
        {"context_length": 0, "prepend_bos": False},
        {"max_contexts_per_document": 0},
    ],
)
def test_options_that_make_no_contexts_are_refused(changes):
    with pytest.raises(CorpusError):
        ContextOptions(**changes)


def test_a_corpus_too_short_for_one_context_is_refused():
    with pytest.raises(CorpusError, match="not one context came out"):
        chunks_of(["a", "b"], ContextOptions(context_length=8, drop_remainder=True))
    with pytest.raises(CorpusError, match="evaluation split"):
        chunks_of(["a"], ContextOptions(), split="evaluation", calibration_fraction=1.0)
    with pytest.raises(CorpusError, match="more tokens"):
        chunks_of(["the thing and the rain"], ContextOptions(context_length=8), max_tokens=3)


def test_too_few_documents_for_two_splits_are_counted_with_a_remedy():
    with pytest.raises(CorpusError) as caught:
        chunks_of(["the rain " * 400], ContextOptions(), split="calibration", calibration_fraction=0.0)
    for part in ("one document", "calibration split", "two splits are needed", "corpus.separator"):
        assert part in str(caught.value)
    with pytest.raises(CorpusError, match=r"3 documents, none of them in the evaluation split"):
        chunks_of(["a b", "b c", "c d"], ContextOptions(), split="evaluation", calibration_fraction=1.0)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False
        bos_token_id = eos_token_id = 1

    with pytest.raises(CorpusError, match="fast tokenizer"):
        next(corpus_chunks(Corpus(["a"]), Slow(), ContextOptions(), batch_tokens=8, chunk_tokens=8))


def test_a_subject_reads_the_batches_and_padding_changes_nothing():
    subject = tiny_subject("llama")
    options = ContextOptions(context_length=16)
    site = "blocks.1.hook_resid_post"
    texts = random_texts(6)
    padded = chunks_of(texts, options, batch_tokens=10**6, chunk_tokens=10**6)
    assert any(not batch.attention_mask.all() for chunk in padded for batch in chunk.batches)
    for chunk in padded:
        for batch in chunk.batches:
            together = subject.read(batch.tokens, [site], batch.attention_mask)[site]
            for row in range(len(batch.tokens)):
                length = int(batch.attention_mask[row].sum())
                alone = subject.read(batch.tokens[row : row + 1, :length], [site])[site]
                torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


def test_a_batch_can_be_moved():
    (chunk,) = chunks_of(["hello"], ContextOptions())
    moved = chunk.batches[0].to("meta")
    assert {moved.tokens.device.type, moved.byte_count.device.type, moved.is_scored.device.type} == {"meta"}
    assert moved.document_ids == chunk.document_ids
