"""One function per kind of case: runs the product's public classes on the inputs, judges against the outputs."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from torch import Tensor

from instantid_demo import styles
from instantid_demo.faces import face, keypoints
from instantid_demo.method import framing, prompts, savings
from instantid_demo.method.conditioning import Conditioning, IdentityCondition, Regions
from instantid_demo.method.identity_net import ControlNet, IdentityNet
from instantid_demo.method.loading import load_pipeline
from instantid_demo.request import RequestError
from tests.parity.cases import SIGMAS_BOUND, WEIGHTED_BOUND, Case, Verdict

Runner = Callable[[Case, "Weights", Verdict], None]


class Weights:
    """Pipelines on one `weights/` folder, loaded when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pipelines: dict[tuple, Any] = {}
        self._nets: dict[tuple[str, type], ControlNetModel] = {}

    def net(self, name: str, kind: type[ControlNet]) -> ControlNetModel:
        """A ControlNet folder as `kind`."""
        if (name, kind) not in self._nets:
            self._nets[name, kind] = kind.from_pretrained(self.folder / name)
        return self._nets[name, kind]

    def pipeline(self, nets: tuple[str, ...] = ("ControlNetModel",), extra: type[ControlNet] = ControlNet) -> Any:
        """Text-to-image with IdentityNet and `nets[1:]` as `extra`: `IdentityNet` hears the identity, too."""
        if (nets, extra) not in self._pipelines:
            pipe = load_pipeline(
                self.folder / "base",
                self.net(nets[0], IdentityNet),
                self.folder / "ip-adapter.bin",
                controlnets=[self.net(name, extra) for name in nets[1:]],
                dtype=torch.float32,
                device="cpu",
            )
            pipe.set_progress_bar_config(disable=True)
            self._pipelines[nets, extra] = pipe
        return self._pipelines[nets, extra]


def generate(case: Case, weights: Weights, verdict: Verdict) -> None:
    """A whole generation, by every tensor on the way to the picture."""
    about, tensors, call = case.about, case.tensors, dict(case.about["call"])
    full, from_picture = about["pipeline"] == "full", about["pipeline"] == "img2img"
    # Basic and img2img hand the identity to every net, full to the first only (quirk 7).
    pipe = weights.pipeline(tuple(about["nets"]), ControlNet if full else IdentityNet)
    base = diffusers.EulerDiscreteScheduler.load_config(weights.folder / "base", subfolder="scheduler")
    scheduler = getattr(diffusers, about["scheduler"]["cls"])
    pipe.scheduler = scheduler.from_config(base, **about["scheduler"]["from_config_overrides"])

    controls = case.pictures("control")
    control: Any = controls if len(controls) > 1 else controls[0]
    call.pop("ip_adapter_scale", None)
    bound = {}
    if full:
        words, negative = call.pop("prompt"), call.pop("negative_prompt")
        for ignored in ("prompt_2", "negative_prompt_2", "clip_skip"):
            call.pop(ignored, None)
        call |= prompts.encode(pipe, words, negative, layout="reference")
        if any(weight != 1 for text in (words, negative) for _, weight in prompts.parse_weights(text)):
            bound = {"bound": WEIGHTED_BOUND}
        if "BREAK" in words + negative:
            verdict.accepted = BREAKS
    if from_picture:
        pipe = pipe.image_to_image()
        pipe.set_progress_bar_config(disable=True)
        call |= {"image": case.picture("init"), "control_image": control}
    else:
        call |= {"image": control, "latents": tensors[about["latents"]]}
    if about.get("generator_seed") is not None:
        call["generator"] = torch.Generator("cpu").manual_seed(about["generator_seed"])
    mask = np.asarray(case.picture("mask"))[..., 0] / 255 if "mask" in about["images"] else None
    person = IdentityCondition(
        tensors[about["image_embeds"]["tensor"]], adapter_scale=about["ip_adapter_scale_effective"]
    )
    steps: dict[str, Tensor] = {}

    def keep(_pipe: Any, step: int, _timestep: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        steps[f"out.latents_{step:02}"] = values["latents"].clone()
        return values

    with pipe.conditioned([person], control_mask=None if mask is None else torch.from_numpy(mask)) as request:
        with listening(pipe) as heard, savings.applied(pipe):
            pictures = pipe(**call, callback_on_step_end=keep).images
        assert request.rows is not None
        heard |= steps
        heard["out.id_tokens"] = request.rows.flatten(1, 2)
    heard["out.timesteps"] = pipe.scheduler.timesteps
    heard["out.init_noise_sigma"] = torch.as_tensor(pipe.scheduler.init_noise_sigma)
    for key, reference in tensors.items():
        if not key.startswith("out."):
            continue
        if key == "out.image_u8":
            ours = np.stack([np.asarray(picture) for picture in pictures])
            verdict.pixels(key, ours, reference.numpy(), levels=1, share=0.005)
        elif key == "out.timesteps":
            verdict.exact(key, heard[key].tolist(), reference.tolist())
        elif key == "out.sigmas":
            verdict.relative(key, torch.as_tensor(pipe.scheduler.sigmas), reference, SIGMAS_BOUND)
        elif key == "out.init_noise_sigma":
            verdict.relative(key, heard[key].reshape(reference.shape), reference, SIGMAS_BOUND)
        else:
            verdict.close(key, heard.get(key), reference, **bound)


@contextmanager
def listening(pipe: Any) -> Iterator[dict[str, Tensor]]:
    """What goes into and comes out of the networks of a running pipeline, under the names of FORMAT.md §2."""
    heard: dict[str, Tensor] = {}
    steps: list[Tensor] = []

    def before(_module: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        if steps:
            return
        added = kwargs["added_cond_kwargs"]
        text, tokens = kwargs["encoder_hidden_states"], added["image_embeds"][0].flatten(1, 2)
        heard["out.unet_sample_00"] = args[0]
        heard["out.encoder_hidden_states"] = torch.cat([text, tokens], dim=1)
        heard["out.text_embeds"], heard["out.time_ids"] = added["text_embeds"], added["time_ids"]
        for index, residual in enumerate(kwargs["down_block_additional_residuals"]):
            heard[f"out.residual_s00_down{index}"] = residual
        heard["out.residual_s00_mid"] = kwargs["mid_block_additional_residual"]

    def after(_module: Any, _args: tuple, output: Any) -> None:
        heard[f"out.noise_pred_{len(steps):02}"] = output[0]
        steps.append(output[0])

    decode, prepare = pipe.vae.decode, pipe.prepare_latents

    def decoding(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = decode(latents, *args, **kwargs)
        heard["out.vae_input"], heard["out.decoded"] = latents, output[0]
        return output

    def preparing(*args: Any, **kwargs: Any) -> Tensor:
        heard["out.init_latents"] = prepare(*args, **kwargs)
        return heard["out.init_latents"]

    with ExitStack() as stack:
        for hook in (
            pipe.unet.register_forward_pre_hook(before, with_kwargs=True),
            pipe.unet.register_forward_hook(after),
        ):
            stack.callback(hook.remove)
        pipe.vae.decode, pipe.prepare_latents = decoding, preparing
        stack.callback(lambda: delattr(pipe.vae, "decode"))
        stack.callback(lambda: delattr(pipe, "prepare_latents"))
        yield heard


def resampler(case: Case, weights: Weights, verdict: Verdict) -> None:
    """Embedding to identity tokens."""
    pipe = weights.pipeline()
    for key, embedding in case.tensors.items():
        if not key.startswith("in."):
            continue
        with pipe.conditioned([IdentityCondition(embedding)]) as request:
            for rows, (images, guided) in {"cfg": (1, True), "nocfg": (1, False), "cfg_n2": (2, True)}.items():
                reference = case.tensors.get(f"out.{key[3:]}.{rows}")
                if reference is not None:
                    verdict.close(f"out.{rows}", request.expand(images, guided).flatten(1, 2), reference)


def controlnet_forward(case: Case, weights: Weights, verdict: Verdict) -> None:
    """One run of a ControlNet on given tokens."""
    about, tensors = case.about, case.tensors
    net = weights.net(about["net"], IdentityNet)
    sample, tokens = tensors["in.sample"], tensors["in.tokens"]
    if "control" in about.get("images", {}):
        height, width = tensors["in.cond"].shape[-2:]
        prepared = weights.pipeline().control_image_processor.preprocess(case.picture("control"), height, width)
        verdict.close("cond", prepared.expand_as(tensors["in.cond"]), tensors["in.cond"])
    net.condition(Conditioning(tokens=tokens[:0, None], adapter_scales=[0.0], rows=tokens[:, None]))
    try:
        with torch.no_grad():
            down, mid = net(
                sample,
                tensors["in.timestep"] if "in.timestep" in tensors else torch.tensor([about["timestep"]]),
                encoder_hidden_states=torch.full_like(tokens, torch.nan),  # text never gets in
                controlnet_cond=tensors["in.cond"],
                conditioning_scale=about["conditioning_scale"],
                guess_mode=about.get("guess_mode", False),
                added_cond_kwargs={"text_embeds": tensors["in.text_embeds"], "time_ids": tensors["in.time_ids"]},
            )
    finally:
        net.condition(None)
    for index, residual in enumerate(down):
        verdict.close(f"out.down{index}", residual, tensors[f"out.down{index}"])
    verdict.close("out.mid", mid, tensors["out.mid"])


def unet_forward(case: Case, weights: Weights, verdict: Verdict) -> None:
    """One run of the UNet with text and identity tokens, residuals and a region."""
    about, tensors, pipe = case.about, case.tensors, weights.pipeline()
    count = pipe.resampler.latents.shape[1]
    states = tensors["in.encoder_hidden_states"]
    text, tokens = states[:, :-count], states[:, None, -count:]
    region = tensors.get("in.region_mask")
    request = Conditioning(
        tokens=tokens[:0],
        adapter_scales=[about["ip_adapter_scale"]],
        regions=Regions(control=None if region is None else region[None]),
        rows=tokens,
    )
    down = [tensors[key] for key in sorted((k for k in tensors if re.fullmatch(r"in\.down\d+", k)), key=_number)]
    with torch.no_grad():
        output = pipe.unet(
            tensors["in.sample"],
            tensors["in.timestep"] if "in.timestep" in tensors else about["timestep"],
            encoder_hidden_states=text,
            added_cond_kwargs={
                "text_embeds": tensors["in.text_embeds"],
                "time_ids": tensors["in.time_ids"],
                "image_embeds": [tokens],
            },
            cross_attention_kwargs={"ip_adapter_masks": request},
            down_block_additional_residuals=down or None,
            mid_block_additional_residual=tensors.get("in.mid"),
        ).sample
    verdict.close("out.noise_pred", output, tensors["out.noise_pred"])


def encode_prompt_basic(case: Case, weights: Weights, verdict: Verdict) -> None:
    """diffusers' own text encoding, which the pipelines keep."""
    pipe = weights.pipeline()
    for key, item in case.about["items"].items():
        for name, ids in case.about.get("input_ids", {}).get(key, {}).items():
            words = item.get("prompt_2", item["prompt"]) if name == "tokenizer_2" else item["prompt"]
            tokenizer = getattr(pipe, name)
            given = tokenizer(words, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
            verdict.exact("input_ids", given.input_ids, ids)
        with torch.no_grad():
            outputs = pipe.encode_prompt(**item, do_classifier_free_guidance=True)
        for name, ours in zip(EMBEDDINGS, outputs, strict=True):
            verdict.close(f"out.{name}", ours, case.tensors[f"out.{key}.{name}"])


def encode_prompt_full(case: Case, weights: Weights, verdict: Verdict) -> None:
    """Weighted and long prompts."""
    pipe = weights.pipeline()
    for key, item in case.about["items"].items():
        words, negative = item["prompt"], item["neg_prompt"]
        if "BREAK" in words + negative:
            verdict.accepted = BREAKS
        else:
            verdict.exact("parsed", [list(piece) for piece in prompts.parse_weights(words)], item["parsed"])
        ours = prompts.encode(pipe, words, negative, layout="reference")
        for name in EMBEDDINGS:
            verdict.close(f"out.{name}", ours[name], case.tensors[f"out.{key}.{name}"], WEIGHTED_BOUND)


def draw_kps(case: Case, _weights: Weights, verdict: Verdict) -> None:
    """Keypoint maps, to the pixel."""
    for item in case.about["items"]:
        points = np.array(item["kps"], dtype=item["kps_dtype"])
        ours = keypoints.draw(item["width"], item["height"], points)
        verdict.pixels("kps", np.asarray(ours), np.asarray(case.picture(item["image"])))


def resize_img(case: Case, _weights: Weights, verdict: Verdict) -> None:
    """Sizes and pixels of fitted pictures."""
    for sizes in case.about.get("sizes", ()):
        blank = Image.new("L", tuple(sizes["input"]))
        verdict.exact("size", list(framing.fit_picture(blank).size), sizes["output"])
        if "output_max_side_1024" in sizes:
            smaller = framing.fit_picture(blank, max_side=1024)
            verdict.exact("size", list(smaller.size), sizes["output_max_side_1024"])
    for index, item in enumerate(case.about.get("items", ())):
        arguments = {("multiple" if k == "base_pixel_number" else k): v for k, v in item["kwargs"].items()}
        if arguments.get("size"):
            arguments["size"] = tuple(arguments["size"])
        ours = np.asarray(framing.fit_picture(case.picture(item["image"]), **arguments))
        verdict.exact("size", [ours.shape[1], ours.shape[0]], item["output"])
        if hashlib.sha256(ours.tobytes()).hexdigest() != item["sha256_rgb"]:
            grid = case.tensors[f"out.{index:02}.grid"].numpy()
            verdict.pixels("grid", ours[item["grid_rows"]][:, item["grid_cols"]], grid, levels=1, share=1.0)


def apply_style(case: Case, _weights: Weights, verdict: Verdict) -> None:
    """How a style's words and the user's are joined; the words of the presets are the product's own."""
    recorded = [(item["out_prompt"], item["out_negative"]) for item in case.about["items"]]
    for item, (words, negative) in zip(case.about["items"], recorded, strict=True):
        try:
            ours = styles.apply(item["style"], item["prompt"], item["negative"])
        except RequestError:
            verdict.failures.append(f"no style {item['style']!r}")
            verdict.accepted = STYLES
            continue
        if ours != (words, negative):
            joined = item["prompt"] in ours[0] and ours[1].endswith(f" {item['negative']}")
            verdict.failures.append(f"style {item['style']!r}")
            verdict.accepted = STYLES if joined else ""


def face_select(case: Case, _weights: Weights, verdict: Verdict) -> None:
    """The largest face."""
    for item in case.about["items"]:
        verdict.exact("largest", face.largest(item["bboxes"]), item["largest"])


def control_mask(case: Case, _weights: Weights, verdict: Verdict) -> None:
    """A face's box as mask."""
    for item in case.about["items"]:
        ours = framing.box_mask(item["width"], item["height"], item["bbox"])
        same = np.array_equal(ours, np.asarray(case.picture(item["image"]))[..., 0])
        if not same and any(int(edge) < 0 for edge in item["bbox"]):
            verdict.failures.append("mask")
            verdict.accepted = verdict.accepted or CLIPPED
        else:
            verdict.exact("mask", same, True)


EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
BREAKS = "BREAK starts a new chunk of the prompt; the reference makes it a word of weight -1"
STYLES = "the style presets' words are the product's own, an unknown style is an error and not Watercolor"
CLIPPED = "a face box beyond the picture is clipped; the reference lets it wrap around, which empties the mask"

RUNNERS: Mapping[str, Runner] = {
    runner.__name__: runner
    for runner in (
        generate,
        resampler,
        controlnet_forward,
        unet_forward,
        encode_prompt_basic,
        encode_prompt_full,
        draw_kps,
        resize_img,
        apply_style,
        face_select,
        control_mask,
    )
}


def run(case: Case, weights: Mapping[str, Weights]) -> Verdict:
    """Runs a case; an error in it is a failure of this case only."""
    verdict = Verdict()
    runner = RUNNERS.get(case.kind)
    name = case.about.get("weights")
    if runner is None:
        verdict.failures.append(f"unknown kind {case.kind!r}")
    elif name is not None and name not in weights:
        verdict.failures.append(f"weights {name} were not given (--weights {name}=DIR)")
    else:
        try:
            runner(case, weights[name] if name else Weights(Path()), verdict)
        except Exception as error:
            verdict.failures.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            verdict.accepted = ""
    return verdict


def _number(key: str) -> int:
    return int(re.sub(r"\D", "", key))
