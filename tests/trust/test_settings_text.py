"""Settings in pictures: ours through every format, other tools' in their own forms, hostile ones as nothing."""

import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from instantid_demo import saving
from instantid_demo.provenance import metadata, texts
from instantid_demo.request import GenerationRequest, Likeness, Result
from instantid_demo.settings import Settings

FORMATS = ("png", "jpeg", "webp")
OWN = 'InstantID: {"seed":1,"steps":2}'


def result(**fields: Any) -> Result:
    given = {"model": "pocket", "seed": 9, "steps": 4, "guidance": 1.5, "width": 128, "height": 128, **fields}
    request = GenerationRequest(**given)
    picture = Image.new("RGB", (32, 32), "teal")
    likeness = ((Likeness(value=0.7, word="strong"),),)
    return Result(
        pictures=(picture,),
        seeds=(request.seed,),
        likeness=likeness,
        seconds={"total": 1.0},
        request=request,
        model_name="Pocket preview",
    )


def saved(kind: str, **fields: Any) -> bytes:
    made = result(**fields)
    return metadata.encode(made.pictures[0], kind, metadata.parameters_text(made, 0))


def picture(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(**chunks: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        info.add_text(name.replace("_", "-") if name == "sd_metadata" else name, text)
    return picture("PNG", pnginfo=info)


def with_exif(kind: str, **tags: Any) -> bytes:
    exif = Image.Exif()
    for name, value in tags.items():
        if name == "comment":
            exif.get_ifd(texts.EXIF)[texts.COMMENT] = value
        else:
            exif[{"make": 0x010F, "software": 0x0131, "description": 0x010E}[name]] = value
    return picture(kind, exif=exif.tobytes())


# ---- our own ----


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "words",
    [
        "Ж" * 4000,
        "日本語" * 1333,
        "一" * 4000,
        "😀" * 4000,
        '"\\' * 2000,
        "\x01" * 4000,
        "\ufeffx",
        "\ufffex",
        "a hat, InstantID: {",
        OWN,
        f"one\n{OWN}\ntwo",
        "Steps: 3, Seed: 4, Size: 64x64",
        "a\nNegative prompt: b\nSteps: 20, Sampler: Euler, Seed: 5\nInstantID: x",
        "tabs\tand\r\nlines\u2028and\x85more\x1c",
    ],
    ids=lambda words: ascii(words[:12]),
)
def test_any_prompt_comes_back(kind: str, words: str, tmp_path: Path) -> None:
    assert metadata.read(saved(kind, prompt=words, negative_prompt=words)) == {
        "model": "pocket",
        "seed": 9,
        "steps": 4,
        "guidance": 1.5,
        "width": 128,
        "height": 128,
        "prompt": words,
        "negative_prompt": words,
    }
    signed = saving.save(result(prompt=words, negative_prompt=words, format=kind), tmp_path, Settings(home=tmp_path))[0]
    assert metadata.read_file(signed)["negative_prompt"] == words


WORDS = st.one_of(
    st.text(max_size=200),
    st.builds(lambda letter, times: letter * times, st.characters(codec="utf-8"), st.integers(0, 4000)),
    st.sampled_from(["", OWN, "InstantID: ", "Steps: 1, Seed: 2, Size: 1x1", "\n", "Negative prompt: x"]),
)
SHARE = st.floats(0, 1)
REQUESTS = st.builds(
    lambda first, last, **fields: GenerationRequest(
        identity_start=min(first, last), identity_end=max(first, last), **fields
    ),
    first=SHARE,
    last=st.floats(0.01, 1),
    prompt=WORDS,
    negative_prompt=WORDS,
    style=st.text(max_size=80),
    model=st.sampled_from(["auto", "pocket", "sdxl", "owner/name-1.0", "juggernaut"]),
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 100),
    guidance=st.floats(0, 20),
    scheduler=st.sampled_from(["euler", "ddim", "lcm", "dpmpp_2m_karras"]),
    width=st.integers(8, 256).map(lambda side: side * 8),
    height=st.integers(8, 256).map(lambda side: side * 8),
    view=st.one_of(st.none(), st.builds(lambda yaw, roll: {"yaw": yaw, "roll": roll}, st.floats(-90, 90), SHARE)),
    place=st.one_of(st.none(), st.builds(lambda x, size: {"x": x, "size": size}, SHARE, st.floats(0.2, 2))),
    lora=st.lists(
        st.builds(lambda w: {"source": "owner/name", "weight": w}, st.one_of(st.just(1.0), st.floats(-2, 2))),
        max_size=5,
    ).map(tuple),
    images=st.integers(1, 8),
    upscale=st.sampled_from([1, 2, 4]),
    face_detail=st.booleans(),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(request=REQUESTS, kind=st.sampled_from(FORMATS))
def test_the_settings_of_any_request_come_back(request: GenerationRequest, kind: str) -> None:
    made = result().model_copy(update={"request": request, "seeds": (request.seed,)})
    back = metadata.read(metadata.encode(made.pictures[0], kind, metadata.parameters_text(made, 0)))
    assert back == {name: value for name, value in request.public().items() if name != "images"}
    assert GenerationRequest(**back) == request.model_copy(update={"images": 1})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/bob/clients/Face of Ann.safetensors", "Face of Ann"),
        ("C:\\Users\\bob\\mix.ckpt", "mix"),
        ("~/models/mix", "mix"),
        ("./clients/mix.SAFETENSORS", "mix"),
        ("clients/mix.pt", "mix"),
        ("clients/../ann/mix.pt", "mix"),
        ("file:///clients/ann/mix.onnx", "mix"),
        ("\\\\server\\share\\mix.bin", "mix"),
    ],
)
def test_no_path_gets_into_a_picture_and_none_comes_out(path: str, name: str) -> None:
    made = result(
        model=path,
        lora=({"source": path, "weight": 0.5}, {"source": "owner/name"}),
        control=({"kind": "canny", "image": path},),
        person=({"face": path, "region": {"x0": 0, "y0": 0, "x1": 0.5, "y1": 1}},),
    )
    text = metadata.parameters_text(made, 0)
    assert not [part for part in ("bob", "clients", "Users", "models", "server", path) if part in text]
    assert metadata.parse(text)["model"] == name
    assert metadata.parse(text)["lora"] == [{"source": name, "weight": 0.5}, {"source": "owner/name"}]
    hostile = metadata.parse(f"InstantID: {json.dumps({'model': path, 'lora': [{'source': path}], 'seed': 3})}")
    assert hostile == {"seed": 3}
    assert hostile.left_out == ("model", "lora")


def test_a_folder_that_is_here_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clients" / "ann").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "clients" not in metadata.parameters_text(result(model="clients/ann"), 0)
    assert metadata.parse('InstantID: {"model":"clients/ann","seed":3}') == {"seed": 3}


def test_hub_ids_stay_whole() -> None:
    sources = [{"source": source} for source in ("owner/name", "owner/name-1.0/file_4step.safetensors", "hyper")]
    text = metadata.parameters_text(result(model="owner/base.v2", lora=tuple(sources)), 0)
    assert metadata.parse(text)["lora"] == sources
    assert metadata.parse(text)["model"] == "owner/base.v2"


def test_a_models_name_cannot_write_settings() -> None:
    text = metadata.parameters_text(result().model_copy(update={"model_name": "a, Seed: 5\nInstantID: {}"}), 0)
    damaged = text.replace('InstantID: {"', "InstantID: {'")
    assert metadata.parse(text)["seed"] == 9
    assert metadata.parse(damaged)["seed"] == 9


def test_pictures_that_took_part_are_named_when_settings_come_back() -> None:
    text = metadata.parameters_text(result(face=("a.jpg",), pose="b.jpg", init="c.jpg", mask="d.png"), 0)
    found = metadata.parse(text)
    assert found.record == {"pictures": ["pose", "init", "mask"]}
    assert found.left_out == ("pose photo", "start picture", "mask")
    assert "start picture" in found.note


def test_fields_that_do_not_fit_each_other_are_left_out() -> None:
    found = metadata.parse('InstantID: {"identity_start":0.9,"identity_end":0.2,"seed":3}')
    assert found == {"identity_start": 0.9, "seed": 3}
    assert found.left_out == ("identity_end",)


# ---- EXIF comments ----

INFOTEXT = "ein Hut für 猫\nNegative prompt: hat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"
COMMENTS = {
    "UTF-16 BE": b"UNICODE\0" + INFOTEXT.encode("utf-16-be"),
    "UTF-16 LE": b"UNICODE\0" + INFOTEXT.encode("utf-16-le"),
    "UTF-16 BE with BOM": b"UNICODE\0\xfe\xff" + INFOTEXT.encode("utf-16-be"),
    "UTF-16 LE with BOM": b"UNICODE\0\xff\xfe" + INFOTEXT.encode("utf-16-le"),
    "UTF-16 LE, lower case": b"Unicode\0" + INFOTEXT.encode("utf-16-le"),
    "UTF-8 called Unicode": b"UNICODE\0" + INFOTEXT.encode(),
    "UTF-8 with BOM": b"UNICODE\0\xef\xbb\xbf" + INFOTEXT.encode(),
    "UTF-8 called ASCII": b"ASCII\0\0\0" + INFOTEXT.encode(),
    "UTF-8 and zeros": bytes(8) + INFOTEXT.encode() + bytes(9),
    "UTF-16 after zeros": bytes(8) + INFOTEXT.encode("utf-16-le") + bytes(4),
    "UTF-8 without prefix": INFOTEXT.encode(),
    "UTF-16 without prefix": INFOTEXT.encode("utf-16-be"),
    "JIS": b"JIS\0\0\0\0\0" + INFOTEXT.replace("ü", "u").encode("iso2022_jp"),
    "Shift-JIS": b"JIS\0\0\0\0\0" + INFOTEXT.replace("ü", "u").encode("cp932"),
}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("name", COMMENTS)
def test_a_comment_is_read_in_every_encoding(name: str, kind: str) -> None:
    found = metadata.read(with_exif(kind, comment=COMMENTS[name]))
    words = INFOTEXT.split("\n")[0]
    assert found["prompt"] == (words.replace("ü", "u") if "JIS" in name else words)
    assert (found["seed"], found["steps"], found["scheduler"]) == (5, 20, "euler_ancestral")


def test_chinese_with_the_letter_that_looks_like_an_n_is_not_turned_round() -> None:
    text = INFOTEXT.replace("ein", "一" * 3000)
    for order in ("utf-16-be", "utf-16-le"):
        assert texts.decoded(b"UNICODE\0" + text.encode(order)) == text


def test_plain_ascii_and_texts_behind_the_pixels() -> None:
    plain = INFOTEXT.encode("ascii", "ignore").decode()
    assert metadata.read(with_exif("JPEG", comment=b"ASCII\0\0\0" + plain.encode()))["seed"] == 5
    assert metadata.read(with_exif("JPEG", description=plain))["seed"] == 5
    assert metadata.read(picture("JPEG", comment=INFOTEXT.encode()))["prompt"] == "ein Hut für 猫"
    data = png()
    body = b"tEXtparameters\0" + INFOTEXT.encode()  # UTF-8 where the standard has Latin-1
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert metadata.read(data[:-12] + chunk + data[-12:])["prompt"] == "ein Hut für 猫"


# ---- other tools ----


def test_automatic1111() -> None:
    found = metadata.parse(
        "a cat,\nin a (red:1.2) hat\nNegative prompt: dog,\nblurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 5, Size: 512x768, "
        "Model hash: ab12, Model: mix, Denoising strength: 0.45, Clip skip: 2, "
        'ADetailer prompt: "a face, Seed: 999, CFG scale: 1: yes", '
        'ADetailer model: face_yolov8n.pt, Lora hashes: "a: b, c: d", Version: v1.10.1'
    )
    assert found == {
        "prompt": "a cat,\nin a (red:1.2) hat",
        "negative_prompt": "dog,\nblurry",
        "steps": 20,
        "guidance": 7.5,
        "seed": 5,
        "width": 512,
        "height": 768,
        "strength": 0.45,
        "clip_skip": 2,
        "scheduler": "dpmpp_2m_karras",
    }
    assert "Model mix" in found.left_out
    assert [name for name in found.left_out if "hash" in name or "ersion" in name] == []


def test_civitai_with_brackets_and_the_first_key_wins() -> None:
    resources = json.dumps([{"type": "lora", "weight": 0.8, "modelName": "Hat, Seed: 1, Steps: 3"}, {"Size": "64x64"}])
    found = metadata.parse(
        f"a cat\nSteps: 25, Civitai resources: {resources}, Sampler: Euler a, CFG scale: 4, Seed: 12, "
        "Size: 832x1216, Created Date: 2025-01-02T03:04:05.1Z, Seed: 99, Extra: [a, Seed: 98], Civitai metadata: {}"
    )
    assert (found["seed"], found["steps"], found["width"], found["height"]) == (12, 25, 832, 1216)
    assert found["scheduler"] == "euler_ancestral"
    assert any("Civitai resources" in name and "Hat" in name for name in found.left_out)


def test_steps_may_stand_anywhere_on_the_line() -> None:
    found = metadata.parse(
        "a cat\nNegative prompt: x, y\nVersion: 2025-01-02, Pipeline: StableDiffusionXLPipeline, Steps: 30, "
        "Size: 1024x1024, Sampler: UniPC, Seed: 77, CFG scale: 6, App: SD.Next, Model: /home/bob/mix.safetensors\n"
        "Template: a {cat|dog}"
    )
    assert (found["prompt"], found["negative_prompt"], found["steps"], found["seed"]) == ("a cat", "x, y", 30, 77)
    assert found["scheduler"] == "unipc"
    assert found.left_out == ("Model mix",)
    assert metadata.parse("He took small Steps: 3, then more.") == {}


@pytest.mark.parametrize("prompt", [OWN, "InstantID: hello", "a hat\n" + OWN, "InstantID: {"])
def test_a_foreign_prompt_may_hold_our_words(prompt: str) -> None:
    found = metadata.parse(f"{prompt}\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 512x768")
    assert (found["prompt"], found["seed"], found["steps"]) == (prompt, 5, 20)


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours", "named"),
    [
        ("Euler", "", "euler", None),
        ("Euler a", "Automatic", "euler_ancestral", None),
        ("DPM++ 2M", "", "dpmpp_2m", None),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras", None),
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras", None),
        ("DPM++ 2M", "Uniform", "dpmpp_2m", None),
        ("DDIM", "", "ddim", None),
        ("LCM", "", "lcm", None),
        ("TCD", "", "tcd", None),
        ("Euler", "Karras", "euler", "Schedule type Karras"),
        ("DPM++ 3M SDE", "", None, "Sampler DPM++ 3M SDE"),
    ],
)
def test_samplers(sampler: str, schedule: str, ours: str | None, named: str | None) -> None:
    more = f", Schedule type: {schedule}" if schedule else ""
    found = metadata.parse(f"a\nSteps: 20, Sampler: {sampler}{more}, CFG scale: 7, Seed: 5, Size: 512x512")
    assert found.get("scheduler") == ours
    assert found.left_out == ((named,) if named else ())


def test_what_is_out_of_range_or_for_enlarging_is_named() -> None:
    found = metadata.parse(
        "a\nSteps: 150, Sampler: Euler, CFG scale: 7, Seed: 12345678901234, Size: 4096x1024, Denoising strength: 0.3, "
        "Hires upscale: 2"
    )
    assert found == {"prompt": "a", "negative_prompt": "", "guidance": 7, "scheduler": "euler"}
    assert {"steps 150", "seed 12345678901234", "Size 4096x1024", "Denoising strength 0.3"} <= set(found.left_out)


FOOOCUS = {
    "base_model": "juggernautXL_v8",
    "base_model_hash": "aeb7",
    "guidance_scale": 4.0,
    "metadata_scheme": "fooocus",
    "loras": [["offset_1.0.safetensors", 0.1, "4852686128f9"]],
    "negative_prompt": "blur",
    "performance": "Speed",
    "prompt": "a fox",
    "refiner_model": "None",
    "resolution": "(896, 1152)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "123",
    "sharpness": 2.0,
    "steps": 30,
    "version": "Fooocus v2.5.5",
}


@pytest.mark.parametrize("kind", ["png", "JPEG", "WEBP"])
def test_fooocus(kind: str) -> None:
    text = json.dumps(FOOOCUS)
    data = png(parameters=text, fooocus_scheme="fooocus") if kind == "png" else with_exif(kind, comment=text.encode())
    found = metadata.read(data)
    assert found == {
        "prompt": "a fox",
        "negative_prompt": "blur",
        "steps": 30,
        "guidance": 4.0,
        "seed": 123,
        "width": 896,
        "height": 1152,
    }
    assert {"loras offset_1.0 0.1", "Sampler dpmpp_2m_sde_gpu", "base model juggernautXL_v8"} <= set(found.left_out)


def test_invokeai() -> None:
    new = {
        "generation_mode": "sdxl_txt2img",
        "positive_prompt": "a (red)1.3 hat++",
        "negative_prompt": "bad",
        "width": 1024,
        "height": 768,
        "seed": 42,
        "cfg_scale": 5.5,
        "cfg_rescale_multiplier": 0.2,
        "steps": 25,
        "scheduler": "dpmpp_2m_k",
        "model": {"key": "1", "hash": "2", "name": "Jugg", "type": "main"},
        "loras": [{"model": {"key": "3", "name": "detail"}, "weight": 0.6}],
        "app_version": "5.4.0",
    }
    found = metadata.read(png(invokeai_metadata=json.dumps(new)))
    assert found == {
        "prompt": "a (red:1.3) (hat:1.21)",
        "negative_prompt": "bad",
        "seed": 42,
        "guidance": 5.5,
        "steps": 25,
        "guidance_rescale": 0.2,
        "width": 1024,
        "height": 768,
        "scheduler": "dpmpp_2m_karras",
    }
    assert found.left_out == ("model Jugg", "loras detail 0.6")
    old = {
        "prompt": [{"prompt": "a cat [dog]", "weight": 1}],
        "steps": 50,
        "cfg_scale": 7.5,
        "width": 512,
        "height": 512,
    }
    found = metadata.read(png(sd_metadata=json.dumps({"image": {**old, "seed": 1, "sampler": "k_euler_a"}})))
    assert (found["prompt"], found["negative_prompt"], found["scheduler"]) == ("a cat", "dog", "euler_ancestral")


NOVELAI = {
    "prompt": "{girl}, [hat], 1.3::smile::, (o)",
    "steps": 28,
    "height": 1216,
    "width": 832,
    "scale": 5.0,
    "uncond_scale": 0.0,
    "cfg_rescale": 0.1,
    "seed": 3,
    "n_samples": 1,
    "noise_schedule": "native",
    "sampler": "k_euler_ancestral",
    "uc": "lowres, {bad}",
    "signed_hash": "x",
}


def test_novelai() -> None:
    text = json.dumps(NOVELAI)
    chunks = {"Title": "NovelAI generated image", "Description": "girl", "Software": "NovelAI", "Comment": text}
    for data in (png(**chunks), with_exif("JPEG", comment=json.dumps(chunks).encode())):
        found = metadata.read(data)
        assert found == {
            "prompt": r"(girl:1.05), (hat:0.952), (smile:1.3), \(o\)",
            "negative_prompt": "lowres, (bad:1.05)",
            "steps": 28,
            "guidance": 5.0,
            "guidance_rescale": 0.1,
            "seed": 3,
            "width": 832,
            "height": 1216,
            "scheduler": "euler_ancestral",
        }


def graph() -> dict[str, Any]:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    sampler = {"seed": 7, "steps": 21, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    return {
        "3": node(
            "KSampler", **sampler, model=["10", 0], positive=["20", 0], negative=["20", 1], latent_image=["5", 0]
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="sub\\mix.safetensors"),
        "5": node("EmptyLatentImage", width=832, height=1216, batch_size=1),
        "6": node("CLIPTextEncode", text=["30", 0], clip=["4", 1]),
        "7": node("CLIPTextEncode", text="bad hands", clip=["4", 1]),
        "10": node("LoraLoader", lora_name="detail.safetensors", strength_model=0.6, model=["4", 0], clip=["4", 1]),
        "20": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1),
        "30": node("PrimitiveString", value="a nice cat"),
    }


@pytest.mark.parametrize("where", ["png", "WebP"])
def test_comfyui(where: str) -> None:
    text = json.dumps(graph())
    found = metadata.read(
        png(prompt=text, workflow="{}") if where == "png" else with_exif("WEBP", make="prompt:" + text)
    )
    assert found == {
        "prompt": "a nice cat",
        "negative_prompt": "bad hands",
        "seed": 7,
        "steps": 21,
        "guidance": 6.5,
        "width": 832,
        "height": 1216,
        "scheduler": "dpmpp_2m_karras",
    }
    assert found.left_out == ("model mix", "LoRA detail")


def test_comfyui_with_its_own_advanced_sampler_and_as_a_saved_workflow() -> None:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    advanced = {
        "1": node("SamplerCustomAdvanced", noise=["2", 0], guider=["3", 0], sampler=["4", 0], sigmas=["5", 0]),
        "2": node("RandomNoise", noise_seed=99),
        "3": node("CFGGuider", positive=["8", 0], negative=["9", 0], cfg=3.5),
        "4": node("KSamplerSelect", sampler_name="euler"),
        "5": node("BasicScheduler", scheduler="simple", steps=8, denoise=1.0),
        "8": node("CLIPTextEncode", text="a fox"),
        "9": node("CLIPTextEncode", text="blur"),
    }
    found = metadata.read(png(prompt=json.dumps(advanced)))
    assert found == {
        "prompt": "a fox",
        "negative_prompt": "blur",
        "seed": 99,
        "steps": 8,
        "guidance": 3.5,
        "scheduler": "euler",
    }
    drawn = {
        "nodes": [
            {"id": 1, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a fox"]},
            {"id": 2, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["blur"]},
            {
                "id": 3,
                "type": "KSampler",
                "widgets_values": [5, "fixed", 20, 4.0, "euler_ancestral", "normal", 0.5],
                "inputs": [{"name": "positive", "link": 1}, {"name": "negative", "link": 2}],
            },
        ],
        "links": [[1, 1, 0, 3, 0, "CONDITIONING"], [2, 2, 0, 3, 1, "CONDITIONING"]],
    }
    found = metadata.read(png(workflow=json.dumps(drawn)))
    assert (found["prompt"], found["negative_prompt"], found["seed"], found["strength"]) == ("a fox", "blur", 5, 0.5)
    assert found["scheduler"] == "euler_ancestral"


def test_swarmui() -> None:
    inner = {
        "prompt": "dog",
        "negativeprompt": "cat",
        "seed": 1,
        "steps": 20,
        "cfgscale": 7,
        "width": 640,
        "height": 768,
    }
    found = metadata.read(png(parameters=json.dumps({"sui_image_params": {**inner, "sampler": "euler"}})))
    assert (found["prompt"], found["negative_prompt"], found["guidance"], found["height"]) == ("dog", "cat", 7, 768)


# ---- hostile ----

HOSTILE = [
    "x" * 10_000_000,
    "Steps: 1, " * 100_000,
    "Steps: 1, a: [," * 70_000,
    "Steps: 20\n" * 50_000,
    "{" * 1_000_000,
    '{"a":' * 900 + "1" + "}" * 900,
    "InstantID: " + "[" * 50_000,
    "InstantID: {" + '"lora":[' * 900 + "]" * 900 + "}",
    json.dumps(
        {"nodes": [1, 2, {"type": []}, {"type": "KSampler", "inputs": 5, "widgets_values": 7}], "links": [[{}]]}
    ),
    json.dumps({"a": {"class_type": "KSampler", "inputs": {key: ["a", 0] for key in ("positive", "seed", "steps")}}}),
    json.dumps({"sui_image_params": {"loras": [[[[[[1]]]]]], "steps": {}, "size": [[[]]], "sampler": 5}}),
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16])
def test_hostile_texts_give_little_and_no_error(text: str) -> None:
    for name in ("parameters", "prompt", "workflow", "Comment", "invokeai_metadata", "sd-metadata"):
        found = metadata.of_texts({name: text[: texts.MOST_CHARACTERS]})
        assert not {"face", "init", "model", "lora"} & found.keys()
        assert len(found.note) < 1000


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    text=st.one_of(
        st.text(max_size=300),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=20)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=4),
                st.dictionaries(
                    st.sampled_from(
                        ["prompt", "image", "seed", "size", "sampler", "1", "class_type", "inputs", "nodes"]
                    ),
                    inner,
                    max_size=5,
                ),
            ),
            max_leaves=20,
        ).map(json.dumps),
    ),
    name=st.sampled_from(["parameters", "UserComment", "prompt", "invokeai_metadata", "sd-metadata", "Comment"]),
)
def test_any_text_is_read_without_an_error(text: str, name: str) -> None:
    found = metadata.of_texts({name: text})
    GenerationRequest(**found)


def test_damaged_pictures_have_no_settings_and_no_error() -> None:
    source = random.Random(1)
    for data in (png(parameters=INFOTEXT), with_exif("JPEG", comment=COMMENTS["UTF-16 LE"]), saved("webp")):
        for _ in range(60):
            broken = bytearray(data)
            for _ in range(source.choice([1, 4, 16])):
                broken[source.randrange(len(broken))] ^= 1 << source.randrange(8)
            GenerationRequest(**metadata.read(bytes(broken)))
    exif = b"Raw profile type exif\0\nexif\n  10\nzzzz"
    chunk = struct.pack(">I", len(exif)) + b"tEXt" + exif + struct.pack(">I", zlib.crc32(b"tEXt" + exif))
    data = png()
    at = data.index(b"IDAT") - 4
    assert metadata.read(data[:at] + chunk + data[at:]) == {}
