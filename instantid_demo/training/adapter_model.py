"""What the paper trains on a frozen base: Resampler, adapter attention and IdentityNet, for SDXL and SD1.5.

The UNet and everything else of the base stay as they are. The results leave in the public layout of InstantID's
weights, so that every loader of those takes them.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn

from instantid_demo.method import checkpoints
from instantid_demo.request import RequestError
from instantid_demo.training.denoising import Conditions, predict
from instantid_demo.training.pocket import adapter_state

RESAMPLER_DEPTH, HEAD_WIDTH = 4, 64
"""Fixed by the public layout: loaders build four layers and tell the number of heads from the width."""
Format = Literal["bin", "safetensors"]


class AdapterModel(nn.Module):
    """The frozen UNet with everything that is trained beside it, as one module for one optimiser."""

    def __init__(
        self, unet: UNet2DConditionModel, identity_net: ControlNetModel, resampler: IPAdapterPlusImageProjection
    ) -> None:
        """`unet` holds the adapter's attention processors already. All but those is frozen."""
        super().__init__()
        self.unet, self.identity_net, self.resampler = unet, identity_net, resampler
        unet.requires_grad_(False)
        # Weights that learn are kept in float32, whatever the frozen ones have.
        for part in self.trained().values():
            part.float().requires_grad_(True)

    @classmethod
    def fresh(
        cls, unet: UNet2DConditionModel, embedding_dim: int, tokens: int = 16, width: int = 1280
    ) -> "AdapterModel":
        """Untrained parts for a base's UNet.

        IdentityNet is a copy of the UNet's encoder (paper, §3.3) and the adapter's projections are copies of the
        text's; the copy is made first, because diffusers cannot make it once an adapter is in the UNet.
        """
        identity_net = ControlNetModel.from_unet(unet, conditioning_channels=3)
        add_adapter(unet, tokens)
        resampler = IPAdapterPlusImageProjection(
            embed_dims=embedding_dim,
            output_dims=unet.config.cross_attention_dim,
            hidden_dims=width,
            depth=RESAMPLER_DEPTH,
            dim_head=HEAD_WIDTH,
            heads=width // HEAD_WIDTH,
            num_queries=tokens,
        )
        return cls(unet, identity_net, resampler)

    @classmethod
    def read(cls, unet: UNet2DConditionModel, folder: Path) -> "AdapterModel":
        """Parts to train on, from a folder in the public layout (`ControlNetModel/` and `ip-adapter.*`).

        Raises:
            RequestError: they are incomplete or made for another base.
        """
        from instantid_demo.method.loading import locate

        net = checkpoints.require(locate(folder, "identity-net"), kind="identity-net")
        state = checkpoints.read_image_adapter(locate(folder, "image-adapter"))
        checkpoints.require_adapter_fits(state, unet)
        identity_net = ControlNetModel.from_pretrained(net.path)
        if identity_net.config.cross_attention_dim != unet.config.cross_attention_dim:
            raise RequestError(f"The IdentityNet in {folder.name!r} was made for another base: choose one that fits.")
        unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
        resampler = unet.encoder_hid_proj.image_projection_layers[0]
        # Tokens are made outside of the UNet here, because IdentityNet needs them as well.
        unet.encoder_hid_proj = None
        unet.register_to_config(encoder_hid_dim_type=None)
        return cls(unet, identity_net, resampler)

    def forward(self, noisy: Tensor, timestep: Tensor, embedding: Tensor, told: Conditions) -> Tensor:
        """The base's prediction `(n, c, h, w)`.

        Args:
            noisy: Latents `(n, c, h, w)`.
            timestep: `(n,)`.
            embedding: Face embeddings `(n, d)`, zeros for nobody.
            told: Everything else that the networks hear; its `tokens` are filled in here.
        """
        told.tokens = self.resampler(embedding[:, None].to(self.resampler.proj_in.weight.dtype))
        return predict(self.unet, self.identity_net, noisy, timestep, told)

    def trained(self) -> dict[str, nn.Module]:
        """The parts that learn, by name."""
        processors = [p for p in self.unet.attn_processors.values() if isinstance(p, IPAdapterAttnProcessor2_0)]
        return {
            "resampler": self.resampler,
            "identity_net": self.identity_net,
            "adapter": nn.ModuleList(processors),
        }

    def export(self, out: Path, kind: Format = "bin") -> None:
        """Writes `ControlNetModel/` and `ip-adapter.bin` (or `.safetensors`) in fp16; `out` appears when complete."""
        unfinished = out.with_name(f"{out.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        net = ControlNetModel.from_config(self.identity_net.config)
        net.load_state_dict(self.identity_net.state_dict())
        net.half().save_pretrained(unfinished / "ControlNetModel")
        learned = adapter_state(self.resampler, self.unet)
        state = {key: value.half().cpu().contiguous() for key, value in learned.items()}
        if kind == "safetensors":
            from safetensors.torch import save_file

            save_file(state, unfinished / "ip-adapter.safetensors")
        else:
            parts = ("image_proj", "ip_adapter")
            nested = {part: {k[len(part) + 1 :]: v for k, v in state.items() if k.startswith(part)} for part in parts}
            torch.save(nested, unfinished / "ip-adapter.bin")
        shutil.rmtree(out, ignore_errors=True)
        os.replace(unfinished, out)


def add_adapter(unet: UNet2DConditionModel, tokens: int) -> None:
    """Gives every cross-attention key and value projections for identity tokens, copied from those of the text."""
    processors: dict[str, Any] = unet.attn_processors
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            processor = IPAdapterAttnProcessor2_0(module.inner_dim, module.cross_attention_dim, num_tokens=(tokens,))
            processor.to_k_ip[0].load_state_dict({"weight": module.to_k.weight.detach().clone()})
            processor.to_v_ip[0].load_state_dict({"weight": module.to_v.weight.detach().clone()})
            processors[f"{name}.processor"] = processor.to(module.to_k.weight.device)
    unet.set_attn_processor(processors)


def describe(model: AdapterModel) -> str:
    """Parameter counts as JSON, for the log."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.trained().items()}
    frozen = sum(p.numel() for p in model.unet.parameters() if not p.requires_grad)
    return json.dumps({"frozen_unet": frozen, **counts})
