import argparse
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autointerp.checkpoints import locations
from autointerp.checkpoints.load import is_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.locations import find_checkpoints
from autointerp.checkpoints.path_patterns import PathPattern, natural_key, split_pattern
from autointerp.errors import CheckpointError
from autointerp.testing.planted_autoencoder import planted_autoencoder

MARK, DAMAGED = b"weights", b"damaged"


def recognises(path):
    """A folder with `sae`, or a file that says so; without looking at names of files."""
    file = path / "sae" if path.is_dir() else path
    content = file.read_bytes() if file.is_file() else b""
    if content == DAMAGED:
        raise CheckpointError("damaged", where=path)
    return content == MARK


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that makes files, each of them a checkpoint's unless told otherwise; the tree is the cwd."""
    monkeypatch.chdir(tmp_path)

    def make(*names, content=MARK):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path

    return make


def found(text):
    return find_checkpoints(str(text), recognises=recognises)


def paths(text, root="."):
    return [os.path.relpath(each.path, root) for each in found(text)]


def names(text):
    return [each.name for each in found(text)]


def refusal(text):
    with pytest.raises(CheckpointError) as caught:
        found(text)
    assert caught.value.where
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- one --------------------------------------------------------------------------------------------


def test_a_file_is_one_checkpoint(tree):
    root = tree("runs/layer_3.safetensors")
    (only,) = found(root / "runs/layer_3.safetensors")
    assert only.path == root / "runs/layer_3.safetensors"
    assert (only.name, only.shown) == ("layer_3", "layer_3.safetensors")
    assert (only.repository, only.revision) == (None, None)


def test_a_folder_is_one_checkpoint_even_with_others_inside(tree):
    root = tree("layers.4/sae", "layers.4/older/sae")
    (only,) = found(f"{root}/layers.4/")
    assert only.path == root / "layers.4"
    assert (only.name, only.shown) == ("layers.4", "layers.4")


def test_the_folder_that_we_are_in_is_called_by_its_name(tree, monkeypatch):
    monkeypatch.chdir(tree("layers.4/sae") / "layers.4")
    assert names(".") == names("../layers.4/.") == ["layers.4"]


def test_what_a_file_or_folder_that_is_named_lacks_is_left_to_whoever_reads_it(tree):
    tree("notes.txt", "empty/notes.txt", content=b"")
    assert paths("notes.txt") == ["notes.txt"]
    assert paths("empty") == ["empty"]
    with pytest.raises(CheckpointError, match="no known checkpoint format"):
        read_checkpoint(find_checkpoints("empty", recognises=is_checkpoint)[0].path)


def test_a_damaged_one_is_left_to_whoever_reads_it(tree):
    tree("damaged/sae", content=DAMAGED)
    assert paths("damaged") == ["damaged"]


def test_a_home_folder_is_understood(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree("home/sae.pt") / "home"))
    assert paths("~/sae.pt") == ["home/sae.pt"]
    assert [each.shown for each in found("~/*.pt")] == ["sae.pt"]
    assert "no such home folder" in refusal("~nobody-of-that-name/sae.pt")


@pytest.mark.parametrize("text", ["b", "b/c.pt", "a/sae/b"])
def test_a_path_that_is_not_there_is_left_to_whoever_reads_it(tree, text):
    tree("a/sae")
    (only,) = find_checkpoints(text, recognises=is_checkpoint)
    assert only.shown == Path(text).name
    with pytest.raises(CheckpointError, match=f"{text}: cannot be read .*; give the path of"):
        read_checkpoint(only.path)


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_what_is_no_path(text):
    assert "this is no path" in refusal(text)


def test_a_folder_of_several_says_which_pattern_finds_them(tree):
    tree("sweep/a/sae", "sweep/b/sae", "alone/a/sae")
    assert "found 2 checkpoints below; use 'sweep/**'" in refusal("sweep")
    assert "found 2 checkpoints below; use 'sweep/**'" in refusal("sweep/")
    assert "found 1 checkpoint below; use 'alone/**'" in refusal("alone")


def test_a_name_with_the_signs_of_a_pattern_is_taken_as_it_is(tree):
    tree("run[1]/sae", "run1/sae", "run*/sae")
    assert paths("run[1]") == ["run[1]"]
    assert paths("run*") == ["run*"]
    assert paths("run?") == ["run1", "run*"]


# ---- many -------------------------------------------------------------------------------------------


def test_everything_below_a_folder_sorted_as_people_count(tree):
    root = tree("sweep/layer_10/sae", "sweep/layer_2/k64/sae", "sweep/layer_2/k8/sae", "sweep/final.pt")
    tree("sweep/README.md", "sweep/layer_2/log.txt", content=b"")
    expected = ["final.pt", "layer_2/k8", "layer_2/k64", "layer_10"]
    assert paths(root / "sweep/**", root / "sweep") == expected
    assert paths("sweep/**", "sweep") == expected
    assert names("sweep/**") == ["final", "layer_2/k8", "layer_2/k64", "layer_10"]
    assert [each.shown for each in found("sweep/**")] == expected


def test_nothing_that_is_shown_is_a_path_of_this_machine(tree):
    root = tree("sweep/a/sae", "sweep/b/sae")
    for text in (root / "sweep/**", root / "*/a", root / "sweep/a", root / "**/*"):
        for each in found(text):
            assert str(root) not in each.shown + each.name
            assert not Path(each.shown).is_absolute()


def test_files_beside_each_other_are_each_one(tree):
    tree(*(f"set/layer_{layer}.safetensors" for layer in (0, 2, 10)))
    tree("set/config.yaml", content=b"")
    assert names("set/**") == ["layer_0", "layer_2", "layer_10"]
    assert names("set/*") == ["layer_0", "layer_2", "layer_10"]


def test_inside_a_checkpoint_there_are_no_others(tree):
    tree("sweep/a/sae", "sweep/a/ae.pt", "sweep/a/checkpoints/ae_100.pt")
    assert paths("sweep/**") == ["sweep/a"]
    assert paths("sweep/**/*.pt") == ["sweep/a/ae.pt", "sweep/a/checkpoints/ae_100.pt"]


def test_the_folder_itself_may_be_the_only_one(tree):
    tree("sweep/sae")
    (only,) = found("sweep/**")
    assert (str(only.path), only.name, only.shown) == ("sweep", "sweep", "sweep")


def test_a_pattern_in_the_middle(tree):
    tree("sweep/a/layer_4/sae", "sweep/b/layer_4/sae", "sweep/b/layer_5/sae", "sweep/c/d/layer_4/sae")
    assert paths("sweep/*/layer_4") == ["sweep/a/layer_4", "sweep/b/layer_4"]
    assert names("sweep/*/layer_4") == ["a", "b"]
    assert paths("sweep/**/layer_4") == ["sweep/a/layer_4", "sweep/b/layer_4", "sweep/c/d/layer_4"]
    assert names("sweep/**/layer_4") == ["a", "b", "c/d"]
    assert paths("*/b/layer_[45]") == ["sweep/b/layer_4", "sweep/b/layer_5"]
    assert names("*/b/layer_[45]") == ["layer_4", "layer_5"]
    assert paths("./sweep//*/./layer_5") == ["sweep/b/layer_5"]


def test_names_are_as_short_as_tells_them_apart(tree):
    tree("run/x/trainer_0/ae.pt", "run/x/trainer_1/ae.pt")
    assert names("run/**") == ["trainer_0", "trainer_1"]
    tree("run/y/trainer_1/ae.pt")
    assert names("run/**") == ["x/trainer_0", "x/trainer_1", "y/trainer_1"]
    tree("twice/a.pt", "twice/a.npz", "twice/b.pt")
    assert names("twice/**") == ["a.npz", "a.pt", "b.pt"]


def test_hidden_names_are_found_only_when_asked_for(tree):
    tree("sweep/a/sae", "sweep/.git/sae", "sweep/b/.cache/sae", "sweep/.b.pt", "sweep/__pycache__/x.pt")
    assert paths("sweep/**") == paths("sweep/*") == ["sweep/a"]
    assert paths("sweep/.git/*") == ["sweep/.git/sae"]
    assert paths("sweep/.*") == ["sweep/.b.pt", "sweep/.git"]


def test_links_are_followed_but_not_in_circles(tree):
    root = tree("store/x/sae", "sweep/a/sae", "sweep/b/c/sae")
    (root / "sweep/linked").symlink_to(root / "store/x")
    (root / "sweep/b/up").symlink_to(root / "sweep")
    (root / "sweep/itself").symlink_to(root / "sweep/itself")
    (root / "sweep/nowhere.pt").symlink_to(root / "gone.pt")
    assert paths("sweep/**") == ["sweep/a", "sweep/b/c", "sweep/linked"]


def test_a_link_beside_what_it_leads_to_is_not_a_second_one(tree):
    root = tree("sweep/step_100/sae", "sweep/step_90/sae", "files/9.pt")
    (root / "sweep/latest").symlink_to(root / "sweep/step_100")
    (root / "files/best.pt").symlink_to("9.pt")
    assert paths("sweep/**") == ["sweep/step_90", "sweep/step_100"]
    assert paths("files/*") == ["files/9.pt"]
    assert paths("sweep/l*") == ["sweep/latest"]


def test_a_search_may_begin_at_a_link(tree):
    root = tree("store/a/sae", "store/b/sae")
    (root / "sweep").symlink_to(root / "store")
    assert paths("sweep/**") == ["sweep/a", "sweep/b"]


def test_what_is_neither_file_nor_folder_is_not_opened(tree):
    root = tree("sweep/a/sae")
    os.mkfifo(root / "sweep/pipe.pt")
    assert paths("sweep/**") == ["sweep/a"]


def test_damaged_ones_are_kept_and_junk_is_not(tree):
    tree("sweep/a/sae")
    tree("sweep/b/sae", "sweep/c.pt", content=DAMAGED)
    tree("sweep/d.pt.incomplete", "sweep/optimizer.pt", "sweep/d/notes", content=b"junk")
    assert paths("sweep/**") == ["sweep/a", "sweep/b", "sweep/c.pt"]


def test_a_folder_that_cannot_be_opened_is_kept(tree, monkeypatch):
    tree("sweep/a/sae", "sweep/closed/x/sae")
    opened = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert paths("sweep/**") == ["sweep/a", "sweep/closed"]


def test_a_file_that_cannot_be_opened_is_kept_if_it_may_hold_weights(tree):
    tree("sweep/a.pt", "sweep/notes.txt")

    def forbidden(path):
        if path.is_dir():
            return False
        raise PermissionError(13, "Permission denied", str(path))

    (only,) = find_checkpoints("sweep/**", recognises=forbidden)
    assert only.shown == "a.pt"


def test_nothing_found_says_what_was_looked_at(tree):
    tree("sweep/a/notes", "sweep/b/notes", "sweep/c", content=b"")
    line = refusal("sweep/**")
    assert "no checkpoint matches among 3 files and 3 folders looked at" in line
    assert "`autointerp inspect PATH`" in line


def test_a_pattern_that_begins_nowhere(tree):
    tree("sweep.pt")
    assert "'swept': there is no such folder" in refusal("swept/**")
    assert "'sweep.pt': is a file, not a folder" in refusal("sweep.pt/**")
    assert "cannot stand behind a wildcard" in refusal("*/../x")


def test_a_huge_tree_is_refused(tree, monkeypatch):
    tree(*(f"sweep/{folder}/{file}" for folder in range(5) for file in range(5)), content=b"")
    monkeypatch.setattr(locations, "_MOST_ENTRIES", 31)
    assert "no checkpoint matches" in refusal("sweep/**")
    monkeypatch.setattr(locations, "_MOST_ENTRIES", 30)
    assert "more than 30 files and folders lie there" in refusal("sweep/**")
    assert "begins further down" in refusal("sweep/**")
    assert "no checkpoint matches" in refusal("sweep/*")
    monkeypatch.setattr(locations, "_MOST_ENTRIES", 4)
    assert "more than 4 files" in refusal("sweep/1/*")


def test_names_that_are_not_utf8_can_be_reported(tree):
    root = tree("sweep/a/sae")
    for name in (b"b\xff", b"b\xfe"):
        folder = root / "sweep" / os.fsdecode(name)
        folder.mkdir()
        (folder / "sae").write_bytes(MARK)
    assert names("sweep/**") == ["a", "b\ufffd", "b\ufffd (2)"]
    for each in found("sweep/**"):
        (each.name + each.shown).encode()


def test_with_the_real_formats(tree, saelens_folder, openai_file, tmp_path):
    config, tensors, store = saelens_folder
    store(config, tensors)
    state, store_file = openai_file
    store_file(state)
    tree("saelens/trainer_state.pt", "notes.txt", content=b"not a checkpoint")
    expected = ["6.pt", "saelens"]
    assert [each.shown for each in find_checkpoints("**", recognises=is_checkpoint)] == expected
    assert [
        read_checkpoint(each.path).format for each in find_checkpoints("**", recognises=is_checkpoint)
    ] == ["openai", "saelens"]


# ---- patterns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "is_met"),
    [
        ("**", "", True),
        ("**", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("a/**/c", "a/b/c/d", False),
        ("**/**", "a", True),
        ("**/b/**/d", "a/b/c/b/d", True),
        ("*", "a", True),
        ("*", "a/b", False),
        ("*", "", False),
        ("a**b", "axb", True),
        ("a**b", "a/b", False),
        ("layer_[0-3]", "layer_3", True),
        ("layer_?", "layer_10", False),
        ("A*", "ab", False),
        ("*", ".a", False),
        (".*", ".a", True),
        ("**", ".a/b", False),
        ("**/.a/b", "x/.a/b", True),
    ],
)
def test_what_a_pattern_matches(pattern, path, is_met):
    names = tuple(path.split("/")) if path else ()
    assert PathPattern(tuple(pattern.split("/"))).matches(names) == is_met


def test_where_a_pattern_begins():
    assert split_pattern("runs/a/*/layer_4") == ("runs/a", ("*", "layer_4"))
    assert split_pattern("**") == ("", ("**",))
    assert split_pattern("/*") == ("/", ("*",))
    assert split_pattern("/a//b/**/") == ("/a//b", ("**",))
    assert split_pattern("a/b") == ("a/b", ())


def test_numbers_in_names_are_compared_as_numbers():
    names = ["b", "layer_10", "layer_2", "10", "9", "layer_2_k8", "layer", "a"]
    assert sorted(names, key=natural_key) == [
        "9",
        "10",
        "a",
        "b",
        "layer",
        "layer_2",
        "layer_2_k8",
        "layer_10",
    ]


def test_somebodys_other_pickle_in_a_sweep_is_no_checkpoint_and_stops_nothing(tmp_path):
    """Runs leave `args.pt` and the like behind; what is damaged stays, so that the run says so."""
    sae = planted_autoencoder(8, 24, k=3, generator=torch.Generator().manual_seed(0), normalization="none")
    write_checkpoint(replace(sae, pre_bias=sae.decoder_bias), tmp_path / "a", format="sparsify")
    torch.save(argparse.Namespace(steps=3), tmp_path / "args.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "args.pt").read_bytes()[:200])
    located = find_checkpoints(f"{tmp_path}/**", recognises=is_checkpoint)
    assert [location.name for location in located] == ["a", "cut"]
    with pytest.raises(CheckpointError, match=r"would run code: it names argparse\.Namespace"):
        read_checkpoint(tmp_path / "args.pt")
