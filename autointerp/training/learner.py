"""One autoencoder in training: takes batches, holds weights, optimiser, average and silence counter."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import BadInputError
from autointerp.training.constraints import project_out_rows, rescale_to_unit_rows
from autointerp.training.dead_latents import SilenceCounter
from autointerp.training.initialisation import Parameters, initial_parameters
from autointerp.training.losses import StepResult, auxk_step, relu_step, topk_step, total_variance
from autointerp.training.options import TrainingOptions
from autointerp.training.weight_average import WeightAverage

__all__ = ["Learner", "Scaling", "fold_scale"]

_ADAM_BETAS = (0.9, 0.999)
_ADAM_EPS = 6.25e-10


@dataclass(frozen=True)
class Scaling:
    """From raw activations to the space of the loss, and the loss's constant; fixed from the first sample."""

    normalization: InputNormalization
    factor: float
    """`sqrt(d_model) / mean ||x||` for raw activations, as layer_norm makes them on its own; else 1."""
    variance: float
    """`total_variance` of the sample in the space of the loss."""

    @classmethod
    def of(cls, sample: Float[Tensor, "token d_model"], options: TrainingOptions) -> "Scaling":
        """Measure a sample.

        Raises:
            BadInputError: all its tokens are the same, so there is nothing to learn.
        """
        normalization = InputNormalization(options.normalization)
        normalised, _ = normalization.apply(sample)
        factor = 1.0
        if options.normalization == "none":
            length = float(torch.linalg.vector_norm(normalised, dim=1).mean())
            factor = sample.shape[1] ** 0.5 / length if length > 0 else 1.0
        variance = total_variance(normalised * factor)
        if not variance > 0:
            raise BadInputError("the activations do not vary from token to token", where=options.name)
        return cls(normalization, factor, variance)

    def apply(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Activations in the space of the loss."""
        return self.normalization.apply(x)[0] * self.factor


@dataclass
class Learner:
    """Everything that changes while one autoencoder is trained."""

    options: TrainingOptions
    scaling: Scaling
    parameters: Parameters
    optimizer: torch.optim.Optimizer
    average: WeightAverage
    silence: SilenceCounter
    step: int = 0

    @classmethod
    def new(
        cls,
        options: TrainingOptions,
        sample: Float[Tensor, "token d_model"],
        device: torch.device | str = "cpu",
    ) -> "Learner":
        """Before the first step; `sample` gives the scale, the variance and the bias."""
        scaling = Scaling.of(sample, options)
        generator = torch.Generator().manual_seed(options.seed)
        start = initial_parameters(
            scaling.apply(sample).cpu(), options.latent_count, dense=options.k is None, generator=generator
        )
        return cls._around(options, scaling, Parameters(*(tensor.to(device) for tensor in start)))

    @classmethod
    def _around(cls, options: TrainingOptions, scaling: Scaling, start: Parameters) -> "Learner":
        parameters = Parameters(*(tensor.clone().requires_grad_() for tensor in start))
        return cls(
            options,
            scaling,
            parameters,
            # Fused: one pass over weights and moments; the plain one makes a dozen.
            torch.optim.Adam(
                list(parameters), lr=options.peak_learning_rate, betas=_ADAM_BETAS, eps=_ADAM_EPS, fused=True
            ),
            WeightAverage.of(list(parameters), options.average_decay),
            SilenceCounter.new(options.latent_count, start.bias.device),
        )

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "token d_model"]) -> dict[str, float]:
        """One optimiser step on a batch of raw activations; the loss's terms before the step."""
        batch = self.scaling.apply(x)
        result = self._main_step(batch)
        losses = dict(result.losses)
        self.silence.observe(result.fired, batch.shape[0])
        gradients, losses["aux"] = self._with_auxk(batch, result)
        losses["dead"] = int(self.silence.dead(self.options.dead_threshold).sum())
        self._update(gradients)
        return losses

    def _main_step(self, batch: Float[Tensor, "token d_model"]) -> StepResult:
        options, variance = self.options, self.scaling.variance
        dtype = getattr(torch, options.product_dtype)
        if options.k is None:
            weight = options.l1_at(self.step)
            return relu_step(batch, self.parameters, l1_coefficient=weight, variance=variance, dtype=dtype)
        return topk_step(batch, self.parameters, levels=options.levels, variance=variance, dtype=dtype)

    def _with_auxk(
        self, batch: Float[Tensor, "token d_model"], result: StepResult
    ) -> tuple[Parameters, float]:
        """Add the AuxK term. ReLU has none: a dead ReLU latent is below zero, and learns nothing from it."""
        dead = self.silence.dead(self.options.dead_threshold).nonzero().squeeze(1)
        count = self.options.aux_count(batch.shape[1])
        if self.options.k is None or not count or not dead.numel():
            return result.gradients, 0.0
        loss, extra = auxk_step(
            batch,
            result.residual,
            self.parameters,
            dead=dead,
            count=count,
            coefficient=self.options.aux_coefficient,
            dtype=getattr(torch, self.options.product_dtype),
        )
        for total, rows in zip(result.gradients[:3], extra[:3], strict=True):
            total.index_add_(0, dead, rows)
        return result.gradients, loss

    def _update(self, gradients: Parameters) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        along = gradients._replace(
            decoder_weight=project_out_rows(gradients.decoder_weight, self.parameters.decoder_weight)
        )
        for parameter, gradient in zip(self.parameters, along, strict=True):
            parameter.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.peak_learning_rate * self.options.learning_rate_scale(self.step)
        self.optimizer.step()
        rescale_to_unit_rows(self.parameters.decoder_weight)
        self.average.observe(list(self.parameters))
        self.step += 1

    def autoencoder(self, metadata: CheckpointMetadata) -> SparseAutoencoder:
        """The averaged weights as a dictionary that reads raw activations.

        Averages of unit rows are a little shorter than 1; the lost length goes into the encoder, which
        leaves `z W_dec` as it is for the latents that fire.
        """
        averaged = Parameters(*(tensor.detach().clone() for tensor in self.average.values()))
        lengths = torch.linalg.vector_norm(averaged.decoder_weight, dim=1)
        averaged = averaged._replace(
            encoder_weight=averaged.encoder_weight * lengths[:, None],
            encoder_bias=averaged.encoder_bias * lengths,
            decoder_weight=functional.normalize(averaged.decoder_weight, dim=1),
        )
        final = fold_scale(averaged, self.scaling.factor)
        return SparseAutoencoder(
            encoder_weight=final.encoder_weight,
            encoder_bias=final.encoder_bias,
            decoder_weight=final.decoder_weight,
            decoder_bias=final.bias,
            pre_bias=final.bias,
            activation=ReLU() if self.options.k is None else TopK(self.options.k),
            normalization=self.scaling.normalization,
            metadata=metadata,
        )

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on; tensors, numbers and strings only."""
        return {
            "scaling": [self.scaling.factor, self.scaling.variance],
            "parameters": [tensor.detach() for tensor in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "average": [self.average.sums, self.average.steps],
            "tokens_since_fired": self.silence.tokens_since_fired,
            "step": self.step,
        }

    @classmethod
    def from_state(cls, options: TrainingOptions, state: dict[str, Any]) -> "Learner":
        """The learner that `state` was taken from."""
        scaling = Scaling(InputNormalization(options.normalization), *state["scaling"])
        learner = cls._around(options, scaling, Parameters(*state["parameters"]))
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.average.sums, learner.average.steps = state["average"]
        learner.silence.tokens_since_fired = state["tokens_since_fired"]
        learner.step = state["step"]
        return learner


def fold_scale(parameters: Parameters, factor: float) -> Parameters:
    """Weights that do to x what `parameters` do to `factor * x`, up to that factor in latents and output.

    TopK and ReLU commute with a positive factor, so with `b' = b / factor` and `b_enc' = b_enc / factor`:
    `act((x - b') W_enc^T + b_enc') = act((factor x - b) W_enc^T + b_enc) / factor`. The weights stay.
    """
    return parameters._replace(encoder_bias=parameters.encoder_bias / factor, bias=parameters.bias / factor)
