"""What Pocket is made of: small modules of the very classes that SDXL InstantID uses, fresh or read back, and
their export in the layout that every loader of InstantID knows (diffusers folder, `ControlNetModel/`, adapter).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, ControlNetModel, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from instantid_demo.sources import ANY_CONTROL

TOKENS = 16
EMBEDDING = 128
TEXT_WIDTH = 128
CROSS_WIDTH = 2 * TEXT_WIDTH
LATENT_CHANNELS = 16
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
"""SDXL's noise schedule, predicting v, with nothing of the picture left at its noisiest step (arXiv 2305.08891)."""

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": (128, 192, 256),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": (4, 6, 8),
    "transformer_layers_per_block": 1,
    "cross_attention_dim": CROSS_WIDTH,
    "use_linear_projection": True,
    "norm_num_groups": 16,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": TEXT_WIDTH + 6 * 32,
}


@dataclass
class Networks:
    """The trained networks. `unet` holds the adapter's attention processors; `resampler` makes their tokens."""

    unet: UNet2DConditionModel
    identity_net: ControlNetModel
    resampler: IPAdapterPlusImageProjection
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    control_net: ControlNetModel | None = None
    """The extra ControlNet on edges, depth and pose, trained after the others."""

    def all(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return {name: network for name, network in vars(self).items() if network is not None}

    def parameters(self) -> list[nn.Parameter]:
        """Every trainable parameter once."""
        return [p for net in self.all().values() for p in net.parameters() if p.requires_grad]


def build(vocabulary: int) -> Networks:
    """Fresh networks for a tokenizer of `vocabulary` words; IdentityNet starts from the UNet (paper, §3.3)."""
    unet = UNet2DConditionModel(**UNET)
    identity_net = ControlNetModel.from_unet(unet, conditioning_channels=3)
    add_adapter(unet)
    common = {
        "vocab_size": vocabulary,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": TEXT_WIDTH,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    return Networks(
        unet,
        identity_net,
        build_resampler(),
        CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", **common)),
        CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", **common)),
    )


def build_control_net(unet: UNet2DConditionModel) -> ControlNetModel:
    """A fresh extra ControlNet: without attention, as the small public ones for SDXL, and otherwise the UNet's copy.

    Its maps say where things are, not what; attention would be half of its weights. One for all kinds of maps: they
    look so different that it tells them apart by itself.
    """
    plain = ("DownBlock2D",) * len(UNET["block_out_channels"])
    shared = {key: value for key, value in UNET.items() if key not in ("out_channels", "sample_size", "up_block_types")}
    net = ControlNetModel(**{**shared, "down_block_types": plain}, mid_block_type="UNetMidBlock2D")
    own = net.state_dict()
    copied = {key: value for key, value in unet.state_dict().items() if key in own and own[key].shape == value.shape}
    net.load_state_dict(copied, strict=False)
    return net


def build_resampler() -> IPAdapterPlusImageProjection:
    """Face embedding `(n, 1, 128)` -> identity tokens `(n, 16, 256)`."""
    return IPAdapterPlusImageProjection(
        embed_dims=EMBEDDING, output_dims=CROSS_WIDTH, hidden_dims=256, depth=4, heads=4, num_queries=TOKENS
    )


def add_adapter(unet: UNet2DConditionModel) -> None:
    """Gives every cross-attention its own key and value projection for the identity tokens, copied from the text's."""
    processors = unet.attn_processors
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            processor = IPAdapterAttnProcessor2_0(module.inner_dim, CROSS_WIDTH, num_tokens=(TOKENS,))
            processor.to_k_ip[0].load_state_dict({"weight": module.to_k.weight.detach().clone()})
            processor.to_v_ip[0].load_state_dict({"weight": module.to_v.weight.detach().clone()})
            processors[f"{name}.processor"] = processor
    unet.set_attn_processor(processors)


def train_tokenizer(texts: list[str], size: int = 2048) -> CLIPTokenizer:
    """A CLIP tokenizer (lower case, byte level) of at most `size` entries, learned from `texts`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2 - len(alphabet), initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    state = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) if not isinstance(merge, str) else tuple(merge.split(" ")) for merge in state["merges"]]
    pieces = list(alphabet) + [f"{letter}</w>" for letter in alphabet]
    pieces += [piece for piece in state["vocab"] if piece not in set(pieces)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def encode_text(networks: Networks, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids `(n, 77)` -> text tokens `(n, 77, 256)` and pooled text `(n, 128)`, as SDXL's pipelines do."""
    first = networks.text_encoder(ids, output_hidden_states=True)
    second = networks.text_encoder_2(ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


def export(networks: Networks, vae: AutoencoderTiny, tokenizer: CLIPTokenizer, centre: np.ndarray, out: Path) -> None:
    """Writes the checkpoint in fp16 to `out`: a diffusers SDXL folder with `ControlNetModel/` and the adapter in it."""
    out.mkdir(parents=True, exist_ok=True)
    plain = UNet2DConditionModel(**UNET)
    plain.load_state_dict({k: v for k, v in networks.unet.state_dict().items() if ".processor." not in k})
    for name, part in {
        "unet": plain,
        "ControlNetModel": networks.identity_net,
        "text_encoder": networks.text_encoder,
        "text_encoder_2": networks.text_encoder_2,
    }.items():
        _save(part, out / name)
    # AutoencoderTiny writes a config entry that it then warns about when it reads it.
    _save(vae, out / "vae", "block_out_channels")
    if networks.control_net is not None:
        save_control_net(networks.control_net, out)
    tokenizer.save_pretrained(out / "tokenizer")
    tokenizer.save_pretrained(out / "tokenizer_2")
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(out / "scheduler")
    adapter = adapter_state(networks.resampler, networks.unet)
    save_file({key: value.half().contiguous() for key, value in adapter.items()}, out / "image_adapter.safetensors")
    np.save(out / "face_centre.npy", centre.astype(np.float32))
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": False,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_control_net(net: ControlNetModel, out: Path) -> None:
    """Writes the extra ControlNet in fp16 beside the others, where the program looks for it."""
    _save(net, out / ANY_CONTROL)


def _save(part: Any, folder: Path, *left_out: str) -> None:
    """A network in fp16, its config without these entries and without the folder that it was once read from."""
    half = type(part)(part.config) if isinstance(part, PreTrainedModel) else type(part).from_config(part.config)
    half.load_state_dict(part.state_dict())
    half.half().save_pretrained(folder)
    config = folder / "config.json"
    entries = json.loads(config.read_text())
    kept = {name: value for name, value in entries.items() if name not in ("_name_or_path", *left_out)}
    config.write_text(json.dumps(kept, indent=2) + "\n")


def adapter_state(resampler: nn.Module, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Resampler and adapter in InstantID's own key layout (`ip-adapter.bin`): `image_proj.*` and `ip_adapter.N.*`."""
    state = {f"image_proj.{_public_name(key)}": value for key, value in _joined(resampler.state_dict()).items()}
    for index, processor in enumerate(unet.attn_processors.values()):
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            state[f"ip_adapter.{index}.to_k_ip.weight"] = processor.to_k_ip[0].weight
            state[f"ip_adapter.{index}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    return {key: value.detach() for key, value in state.items()}


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys and values of the Resampler's attention in one matrix, as the original module has them."""
    joined = {}
    for key, value in state.items():
        if key.endswith("to_k.weight"):
            value = torch.cat([value, state[key.replace("to_k", "to_v")]])
            key = key.replace("to_k", "to_kv")
        elif key.endswith("to_v.weight"):
            continue
        joined[key] = value
    return joined


def _public_name(key: str) -> str:
    for ours, public in (
        (".ln0.", ".0.norm1."),
        (".ln1.", ".0.norm2."),
        (".attn.to_out.0.", ".0.to_out."),
        (".attn.", ".0."),
        (".ff.0.", ".1.0."),
        (".ff.1.net.0.proj.", ".1.1."),
        (".ff.1.net.2.", ".1.3."),
    ):
        key = key.replace(ours, public)
    return key


def with_latents(networks: Networks, channels: int) -> Networks:
    """The networks for latents of `channels` channels, at first deaf to those that are new and silent about them."""
    unet, net = networks.unet, networks.identity_net
    for owner in (unet, net):
        old = owner.conv_in
        owner.conv_in = nn.Conv2d(channels, old.out_channels, old.kernel_size, padding=old.padding)
        with torch.no_grad():
            owner.conv_in.weight.zero_()[:, : old.in_channels] = old.weight
            owner.conv_in.bias.copy_(old.bias)
        owner.register_to_config(in_channels=channels)
    out = unet.conv_out
    unet.conv_out = nn.Conv2d(out.in_channels, channels, out.kernel_size, padding=out.padding)
    with torch.no_grad():
        unet.conv_out.weight.zero_()[: out.out_channels] = out.weight
        unet.conv_out.bias.zero_()[: out.out_channels] = out.bias
    unet.register_to_config(out_channels=channels)
    return networks


def with_tokenizer(networks: Networks, old: CLIPTokenizer, new: CLIPTokenizer) -> Networks:
    """The networks with text encoders for another tokenizer; pieces that both know keep what they mean."""
    known, wanted = old.get_vocab(), new.get_vocab()
    kept = [(index, known[piece]) for piece, index in wanted.items() if piece in known]
    for name in ("text_encoder", "text_encoder_2"):
        encoder = getattr(networks, name)
        config = type(encoder.config)(**encoder.config.to_dict())
        config.vocab_size = len(wanted)
        config.bos_token_id, config.eos_token_id = new.bos_token_id, new.eos_token_id
        config.pad_token_id = new.eos_token_id
        fresh, state = type(encoder)(config).float(), encoder.state_dict()
        (key,) = (key for key in state if key.endswith("token_embedding.weight"))
        pieces = fresh.state_dict()[key]
        mine, theirs = (list(indices) for indices in zip(*kept, strict=True))
        pieces[mine] = state[key][theirs]
        fresh.load_state_dict({**state, key: pieces})
        setattr(networks, name, fresh.train())
    return networks


def load_control_net(folder: Path | None) -> ControlNetModel | None:
    """Reads a checkpoint's extra ControlNet back in fp32, to train on; None where it has none."""
    if folder is None or not (folder / ANY_CONTROL).is_dir():
        return None
    return ControlNetModel.from_pretrained(folder / ANY_CONTROL).float().train()


def words(folder: Path | None) -> list[str]:
    """The words that a checkpoint learned before; none where there is no checkpoint."""
    file = None if folder is None else folder / "words.json"
    return json.loads(file.read_text()) if file is not None and file.is_file() else []


def load(folder: Path) -> tuple[Networks, AutoencoderTiny, CLIPTokenizer]:
    """Reads an exported checkpoint back in fp32, to train on."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    state = load_file(folder / "image_adapter.safetensors")
    unet._load_ip_adapter_weights(
        [
            {
                part: {
                    key.removeprefix(f"{part}."): value.float() for key, value in state.items() if key.startswith(part)
                }
                for part in ("image_proj", "ip_adapter")
            }
        ],
        low_cpu_mem_usage=False,
    )
    resampler = unet.encoder_hid_proj.image_projection_layers[0]
    unet.encoder_hid_proj = None
    unet.register_to_config(encoder_hid_dim_type=None)
    networks = Networks(
        unet,
        ControlNetModel.from_pretrained(folder / "ControlNetModel"),
        resampler,
        CLIPTextModel.from_pretrained(folder / "text_encoder"),
        CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
    )
    for network in networks.all().values():
        network.float().train()
    return (
        networks,
        AutoencoderTiny.from_pretrained(folder / "vae").float(),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
    )
