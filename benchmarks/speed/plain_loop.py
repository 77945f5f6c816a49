"""The other side of the comparison: the loop that one would write down for one checkpoint.

For each checkpoint, over all batches: a clean pass with a hook that keeps the activations, a dense encoder,
`torch.topk`, scatter, a dense decoder, a pass of the whole model with a hook that puts the reconstruction in,
and two more for zero and mean ablation. Everything stays on tensors of a batch, in float32, under
`inference_mode`, with library functions throughout; nothing is slowed down on purpose. It knows nothing of
`autointerp` but the weights of a dictionary.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder

Numbers = dict[str, float | Tensor]


class DenseTopK:
    """The weights of a dictionary, with dense latents."""

    def __init__(self, sae: SparseAutoencoder, k: int) -> None:
        self.w_enc, self.b_enc = sae.encoder_weight, sae.encoder_bias
        self.w_dec, self.b_dec = sae.decoder_weight, sae.decoder_bias
        self.pre_bias, self.k = sae.pre_bias, k

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        pre = functional.linear((x - mean) / (std + 1e-5) - self.pre_bias, self.w_enc, self.b_enc)
        values, indices = torch.topk(pre, self.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter_(1, indices, values.relu_()), mean, std

    def decode(self, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return (z @ self.w_dec + self.b_dec) * std + mean


def logits_with(model: nn.Module, block: nn.Module, tokens: Tensor, values: Tensor) -> Tensor:
    """Logits of a pass of the whole model, with the block's output replaced."""

    def replace(_module: nn.Module, _args: object, output: object) -> object:
        return values if isinstance(output, Tensor) else (values, *output[1:])

    handle = block.register_forward_hook(replace)
    try:
        return model(tokens, use_cache=False).logits
    finally:
        handle.remove()


def clean_pass(model: nn.Module, block: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Activations behind the block, and the logits."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: object) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    handle = block.register_forward_hook(keep)
    try:
        logits = model(tokens, use_cache=False).logits
    finally:
        handle.remove()
    return kept[0], logits


def counted(logits: Tensor) -> Tensor:
    """Predictions of a token of the text by a token of the text: not position 0, not the last one."""
    return logits[:, 1:-1].reshape(-1, logits.shape[-1])


@torch.inference_mode()
def plain_loop(
    model: nn.Module,
    block: nn.Module,
    sae: DenseTopK,
    batches: Iterable[Tensor],
    mean: Tensor,
    unit_mean: Tensor,
    *,
    ablations: bool = True,
) -> Numbers:
    """All numbers of one checkpoint over batches [context position]; position 0 holds no text.

    Four passes a batch; two without `ablations`.
    """
    sums: dict[str, Tensor] = {}
    fired = torch.zeros(sae.w_enc.shape[0], dtype=torch.long, device=sae.w_enc.device)

    def add(name: str, value: Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + value.double()

    for tokens in batches:
        activations, logits = clean_pass(model, block, tokens)
        targets = tokens[:, 2:].reshape(-1)
        log_p = functional.log_softmax(counted(logits), dim=1)
        add("loss", functional.nll_loss(log_p, targets, reduction="sum"))
        del logits

        x = activations.reshape(-1, activations.shape[-1])
        z, x_mean, x_std = sae.encode(x)
        x_hat = sae.decode(z, x_mean, x_std).view_as(activations)

        log_q = functional.log_softmax(counted(logits_with(model, block, tokens, x_hat)), dim=1)
        add("substituted", functional.nll_loss(log_q, targets, reduction="sum"))
        add("kl", functional.kl_div(log_q, log_p, log_target=True, reduction="sum"))
        del log_q, log_p
        for name, vector in (("zero", torch.zeros_like(mean)), ("mean", mean)) if ablations else ():
            ablated = counted(logits_with(model, block, tokens, vector.expand_as(activations)))
            add(name, functional.cross_entropy(ablated, targets, reduction="sum"))
            del ablated

        z = z.view(*tokens.shape, -1)[:, 1:].flatten(0, 1)
        active = z > 0
        fired += active.sum(0)
        add("l0", active.sum())
        add_reconstruction(add, activations[:, 1:].flatten(0, 1), x_hat[:, 1:].flatten(0, 1), mean, unit_mean)
        add("tokens", torch.tensor(len(z)))
        add("predictions", torch.tensor(len(targets)))
    return finished({name: float(value) for name, value in sums.items()}, fired)


def add_reconstruction(
    add: Callable[[str, Tensor], None], x: Tensor, x_hat: Tensor, mean: Tensor, unit_mean: Tensor
) -> None:
    """Sums behind the errors, the cosine, the bias and the ratio of norms."""
    centred = x - x.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    error = (x_hat - x).square().sum(1)
    add("unit_error", (error / norm.squeeze(1).square()).sum())
    add("unit_baseline", (centred / norm - unit_mean).square().sum())
    add("error", error.sum())
    add("baseline", (x - mean).square().sum())
    add("cosine", functional.cosine_similarity(x, x_hat, dim=1).sum())
    add("hat_square", x_hat.square().sum())
    add("product", (x * x_hat).sum())
    add("hat_norm", x_hat.norm(dim=1).sum())
    add("norm", x.norm(dim=1).sum())


def finished(sums: dict[str, float], fired: Tensor) -> Numbers:
    """Sums -> the metrics, under the names that `autointerp` gives them."""
    tokens, predictions = sums["tokens"], sums["predictions"]
    ablated = {f"{name}_ce_nats": sums[name] / predictions for name in ("zero", "mean") if name in sums}
    return ablated | {
        "reconstruction.normalized_mse": sums["unit_error"] / sums["unit_baseline"],
        "reconstruction.normalized_mse_raw": sums["error"] / sums["baseline"],
        "reconstruction.explained_variance": 1 - sums["error"] / sums["baseline"],
        "reconstruction.cosine": sums["cosine"] / tokens,
        "reconstruction.l0": sums["l0"] / tokens,
        "reconstruction.relative_bias": sums["hat_square"] / sums["product"],
        "reconstruction.norm_ratio": sums["hat_norm"] / sums["norm"],
        "downstream.clean_ce_nats": sums["loss"] / predictions,
        "downstream.delta_ce_nats": (sums["substituted"] - sums["loss"]) / predictions,
        "downstream.kl_nats": sums["kl"] / predictions,
        "fired": fired,
    }
