"""What `autointerp inspect` shows."""

import json

import numpy as np

from autointerp.checkpoints.activation_functions import JumpReLU
from autointerp.checkpoints.inspect import inspection
from autointerp.checkpoints.load import read_checkpoint, write_checkpoint
from autointerp.checkpoints.topk_functions import TopK


def test_an_inspection_shows_what_is_there_and_what_is_missing(autoencoder, tmp_path):
    sae = autoencoder(TopK(5), "layer_norm")
    write_checkpoint(sae, tmp_path / "6.pt", format="openai")
    shown = inspection(read_checkpoint(tmp_path / "6.pt"))
    norms = np.linalg.norm(sae.decoder_weight.numpy(), axis=1)
    assert (shown["format"], shown["architecture"], shown["normalization"]) == (
        "openai",
        "topk(k=5)",
        "layer_norm",
    )
    assert (shown["latent_count"], shown["d_model"], shown["site"]) == (30, 6, None)
    assert shown["missing"] == ["site", "subject", "context_length", "prepend_bos"]
    np.testing.assert_allclose(
        [shown["decoder_norm"][key] for key in ("least", "mean", "largest")],
        [norms.min(), norms.mean(), norms.max()],
        rtol=1e-6,
    )
    assert shown["sha256"] == read_checkpoint(tmp_path / "6.pt").sha256
    assert shown["file_size_bytes"] == (tmp_path / "6.pt").stat().st_size
    assert json.loads(json.dumps(shown)) == shown


def test_thresholds_are_among_the_shapes_and_sizes_of_a_folder_add_up(autoencoder, tmp_path, draw):
    write_checkpoint(autoencoder(JumpReLU(draw(30)), shared=False), tmp_path, format="saelens")
    shown = inspection(read_checkpoint(tmp_path))
    assert shown["shapes"]["threshold"] == [30] and "pre_bias" not in shown["shapes"]
    assert shown["subtracts_bias_from_input"] is False
    assert shown["file_size_bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())
