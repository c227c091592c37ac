"""The field's architecture beside ours: an encoder of the observed spectrum, a decoder at rest.

As spender (Melchior et al. 2023, AJ 166, 74, arXiv:2211.07890) and SpenderQ for quasars (Hahn et al. 2025,
arXiv:2506.18986) do it: convolutions over the flux as observed, attention that picks features out of it, and a
perceptron that is told the redshift. Only that idea is theirs; sizes are for two CPU cores, and the decoder, the
likelihood and the training are the product's, so that the encoder is all that differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.config import VAEConfig
from models.grid import STEP
from models.vae import CLIP, VAE, Prepared, Window

CHANNELS = (32, 64, 256)  # of the convolutions; half of the last are attention to the other half
KERNELS = (11, 9, 9)
STRIDES = (4, 4, 2)  # bins, together 4,400 km/s between features


@dataclass
class ObservedWindow(Window):
    """A window that remembers the spectra as observed."""

    spectra: Prepared


class ObservedVAE(VAE):
    """The product's network with an encoder that sees observed bins and the redshift, not the rest frame.

    ``enter``, the product's first layer, is kept for the weights' file and takes no part.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        for inside, outside, kernel, stride in zip((2, *CHANNELS), CHANNELS, KERNELS, STRIDES, strict=False):
            layers += [nn.Conv1d(inside, outside, kernel, stride, padding=kernel // 2), nn.SiLU()]
        self.look = nn.Sequential(*layers[:-1])
        self.read = nn.Linear(CHANNELS[-1] // 2 + 1, config.hidden)

    def window(self, spectra: Prepared) -> ObservedWindow:
        """As the product's, with the spectra."""
        return ObservedWindow(**vars(super().window(spectra)), spectra=spectra)

    def encode(self, window: Window) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latent posterior, [B, D] each.

        What goes in: the flux in units of its scale, damped where it is little known, how well each bin is known
        (w / (w + 1), 0 where nothing is), [B, 2, O]; and ln(1 + z).
        """
        if not isinstance(window, ObservedWindow):
            raise TypeError("expected a window made by ObservedVAE.window")
        spectra = window.spectra
        known_BO = spectra.weight_BO / (spectra.weight_BO + 1.0)
        flux_BO = spectra.flux_BO.clamp(-CLIP, CLIP) * known_BO
        value_BCS, attention_BCS = self.look(torch.stack([flux_BO, known_BO], 1)).chunk(2, dim=1)
        picked_BC = (value_BCS * attention_BCS.softmax(2)).sum(2)
        redshift_B = (self.grid.max_shift - spectra.offset_B) * (STEP * math.log(10.0))
        seen = torch.cat([picked_BC, redshift_B[:, None]], 1)
        hidden = nn.functional.silu(self.encode_1(nn.functional.silu(self.read(seen))))
        mean_BD, log_variance_BD = self.encode_2(hidden).chunk(2, dim=1)
        return mean_BD, log_variance_BD.clamp(-14.0, 6.0)
