"""Tiny stand-ins of what is published for SDXL, in the very layouts of the public repositories."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from tests import layouts

EMBEDDING = 512
"""Width of glintr100's embedding."""


def publish(root: Path) -> None:
    """All of them as `root/owner/name/…`."""
    base = layouts.tiny_sdxl()
    _save_base(base, root / "wangqixun/YamerMIX_v8", None)
    _save_base(base, root / "stabilityai/stable-diffusion-xl-base-1.0", "fp16")
    layouts.tiny_instantid(base.unet, root / "InstantX/InstantID", EMBEDDING)
    _save_antelope(root / "DIAMONIK7777/antelopev2")
    _save_filter(root / "Falconsai/nsfw_image_detection")
    control = layouts.tiny_control(base.unet)
    control.save_pretrained(root / "diffusers/controlnet-canny-sdxl-1.0", variant="fp16")
    control.save_pretrained(root / "diffusers/controlnet-canny-sdxl-1.0")
    _save_lora(base.unet, root / "latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors")
    small = (8,) * 4
    tiny = AutoencoderTiny(encoder_block_out_channels=small, decoder_block_out_channels=small)
    tiny.save_pretrained(root / "madebyollin/taesdxl")
    for folder in root.glob("*/*"):
        (folder / "README.md").write_text("A card.\n")
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")


def _save_base(base: Any, folder: Path, variant: str | None) -> None:
    base.save_pretrained(folder)
    if variant:
        base.save_pretrained(folder, variant=variant)
    else:
        index = folder / "model_index.json"
        # As YamerMIX's own index has it.
        index.write_text(index.read_text().replace("StableDiffusionXLPipeline", "StableDiffusionXLCommonPipeline"))
    (folder / "sd_xl_in_one_file.safetensors").write_bytes(b"never fetched" * 200)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never fetched" * 200)


def _save_filter(folder: Path) -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
        id2label={0: "normal", 1: "nsfw"},
    )  # fmt: skip
    network = ViTForImageClassification(config)
    network.classifier.weight.data.zero_()
    network.classifier.bias.data.copy_(torch.tensor([5.0, 0.0]))
    network.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def _save_lora(unet: UNet2DConditionModel, file: Path) -> None:
    state = {}
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_q"):
            key = f"lora_unet_{name.replace('.', '_')}"
            state[f"{key}.lora_down.weight"] = torch.randn(4, module.in_features) / 10
            state[f"{key}.lora_up.weight"] = torch.randn(module.out_features, 4) / 10
            state[f"{key}.alpha"] = torch.tensor(4.0)
    file.parent.mkdir(parents=True)
    save_file(state, file)


def _save_antelope(folder: Path) -> None:
    """ONNX graphs with antelopev2's inputs and outputs; the detector finds one face in the middle of anything."""
    folder.mkdir(parents=True)
    _save_onnx(folder / "scrfd_10g_bnkps.onnx", *_detector())
    _save_onnx(folder / "glintr100.onnx", *_pooled([1, 3, 112, 112], EMBEDDING, 20.0))
    _save_onnx(folder / "genderage.onnx", *_pooled([1, 3, 96, 96], 3, 0.0, [1.0, 0.0, 0.34]))
    (folder / "2d106det.onnx").write_bytes(b"never fetched" * 200)


def _detector() -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Nine outputs: scores, boxes and keypoints at strides 8, 16, 32 with two anchors per place, for 640 × 640."""
    nodes, weights, outputs = [], [], []
    found: dict[str, dict[int, np.ndarray]] = {"score": {}, "box": {}, "points": {}}
    for stride in (8, 16, 32):
        count = 2 * (640 // stride) ** 2
        found["score"][stride] = np.zeros((count, 1), np.float32)
        found["box"][stride] = np.full((count, 4), 4.0, np.float32)
        found["points"][stride] = np.zeros((count, 10), np.float32)
    middle = 2 * (10 * 20 + 10)  # of the coarsest grid: at 320, 320
    found["score"][32][middle] = 0.9
    found["points"][32][middle] = np.array([-1.2, -1, 1.2, -1, 0, 0, -1, 1.2, 1, 1.2], np.float32)
    weights.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "nothing"], ["zero"]))
    for kind in ("score", "box", "points"):
        for stride, values in found[kind].items():
            name = f"{kind}_{stride}"
            weights.append(numpy_helper.from_array(values, f"{name}_values"))
            nodes.append(helper.make_node("Add", [f"{name}_values", "zero"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(values.shape)))
    entrance = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    return nodes, [entrance], outputs, weights


def _pooled(
    shape: list[int], width: int, scale: float, plus: list[float] | None = None
) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """The picture, shrunk and projected: `scale` times a vector of about unit length, and `plus`."""
    draw = np.random.default_rng(width)
    side = shape[2] // 8
    weights = [
        numpy_helper.from_array(draw.normal(size=(3 * side * side, width)).astype(np.float32) / width, "projection"),
        numpy_helper.from_array(np.float32(scale), "scale"),
        numpy_helper.from_array(np.array(plus or [0.0] * width, np.float32), "plus"),
    ]
    nodes = [
        helper.make_node("AveragePool", ["input"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("Mul", ["projected", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "plus"], ["output"]),
    ]
    entrance = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    return nodes, [entrance], [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, width])], weights


def _save_onnx(file: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> None:
    graph = helper.make_graph(nodes, file.stem, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, file)
