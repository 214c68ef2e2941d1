"""What prompts of other tools say besides words: nothing of it becomes words in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from instantid_demo import comfyui, prepare, syntax, wording
from instantid_demo.engine import Engine
from instantid_demo.method import embeddings, prompts
from instantid_demo.method.loading import load_pipeline
from instantid_demo.models import addons
from instantid_demo.request import GenerationRequest, RequestError
from instantid_demo.settings import ROOT, Settings

POCKET = ROOT / "assets" / "pocket"
PHOTO = ROOT / "assets" / "examples" / "woman.jpg"


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """Two LoRAs and an embedding of the user's own."""
    settings = Settings(home=tmp_path)  # type: ignore[call-arg]
    for name in ("loras/ink.safetensors", "loras/Clay v2.safetensors", "embeddings/MyLook.safetensors"):
        file = settings.models / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"x": torch.ones(1)}, file)
    return settings


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a photo of a woman, (red hat:1.2), [blurry], ((sharp))",
        "a woman [in a garden (with roses:1.3)], 35mm, 10:30 on the clock, I <3 you",
        "SALT AND PEPPER",
        "salt and pepper, Andy, BRAND",
        r"a \[tag:x:0.5\] and \(brackets\)",
        "an unclosed [bracket: of words",
        "closed] twice) {curly} under__scored",
        "one BREAK two\nand a third   line , with  odd blanks ",
        "a neg, negative space, well-lit, bad artist, lightning",
        "雪の中, в снегу",
    ],
)
def test_plain_words_come_back_as_they_are(prompt: str) -> None:
    said = syntax.read(prompt)
    assert said.text == prompt
    assert syntax.notes([said]) == []
    assert said.loras == []


@pytest.mark.parametrize(
    ("prompt", "text", "loras"),
    [
        ("a hat <lora:ink:0.6>", "a hat", [("ink", 0.6)]),
        ("<lora:ink>a hat", "a hat", [("ink", 1.0)]),
        ("a <lora:ink:0.6:0.8> hat", "a hat", [("ink", 0.6)]),
        ("a hat, <lora:ink:-1.5>, red", "a hat, red", [("ink", -1.5)]),
        ("<lora:ink:te=0.2:unet=0.7>a hat", "a hat", [("ink", 0.7)]),
        ("<lora:ink:1:lbw=OUTALL>,<lyco:clay:.5>,a hat", "a hat", [("ink", 1.0), ("clay", 0.5)]),
        ("<LORA: ink : 0.6 > a hat", "a hat", [("ink", 0.6)]),
    ],
)
def test_lora_tags_are_split_off(prompt: str, text: str, loras: list[tuple[str, float]]) -> None:
    said = syntax.read(prompt)
    assert (said.text, said.loras, said.left_out) == (text, loras, [])


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a [cat:dog:0.7] in snow", "a cat in snow"),
        ("a [cat:dog:0.2] in snow", "a dog in snow"),
        ("a [cat:dog:12] in snow", "a dog in snow"),  # of 30 steps
        ("a [cat:dog:20] in snow", "a cat in snow"),
        ("a woman[, smiling:0.3]", "a woman, smiling"),
        ("a woman[, smiling:0.8]", "a woman"),
        ("a woman[, smiling::0.8]", "a woman, smiling"),
        ("a [(red:1.2) cat:[blue|green] dog:0.1]", "a blue dog"),
        ("a [cat|dog|cow]", "a cat"),
        ("a {red|blue} hat", "a red hat"),
    ],
)
def test_changing_words_become_those_of_most_steps(prompt: str, text: str) -> None:
    said = syntax.read(prompt)
    assert said.text == text
    (note,) = syntax.notes([said])
    assert "not supported" in note
    assert said.replaced[-1][0][:5] in prompt


def test_step_numbers_are_shares_of_the_requests_steps() -> None:
    assert syntax.read("a [cat:dog:4]", steps=5).text == "a cat"
    assert syntax.read("a [cat:dog:4]", steps=50).text == "a dog"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a cat AND a dog", "a cat, a dog"),
        ("a cat :1.2 AND a dog :0.8", "a cat, a dog"),
    ],
)
def test_composed_prompts_are_read_as_one(prompt: str, text: str) -> None:
    said = syntax.read(prompt)
    assert said.text == text
    assert any("AND" in note for note in syntax.notes([said]))


@pytest.mark.parametrize(
    ("prompt", "text", "named"),
    [
        ("blurry, embedding:foo, bad", "blurry, bad", "embedding:foo"),
        ("(embedding:foo.pt:1.2), bad", "bad", "embedding:foo.pt"),
        ("easynegative, bad", "bad", "easynegative"),
        ("(EasyNegative:1.2), bad-hands-5, bad", "bad", "bad-hands-5"),
        ("ng_deepnegative_v1_75t, FastNegativeV2, unaestheticXL_cbp62-neg, bad", "bad", "FastNegativeV2"),
        ("<hypernet:x:0.5>bad", "bad", "<hypernet:x:0.5>"),
        ("a __colour__ hat", "a hat", "__colour__"),
        ("two people ADDROW a cat", "two people, a cat", "ADDROW"),
    ],
)
def test_what_is_not_here_is_left_out_and_named(prompt: str, text: str, named: str) -> None:
    said = syntax.read(prompt)
    assert said.text == text
    (note,) = syntax.notes([said])
    assert named in note


def test_tags_become_loras_where_such_a_file_is_here(home: Settings) -> None:
    request = GenerationRequest(prompt="a hat <lora:INK:0.6> <lora:clay_v2:9>", negative_prompt="bad <lora:ink:1>")
    done, notes = wording.understood(request, home)
    assert done.prompt == "a hat"
    assert done.negative_prompt == "bad"
    assert [(entry.source, entry.weight) for entry in done.lora] == [("INK", 0.6), ("clay_v2", 2.0)]
    assert len(notes) == 1
    assert "ink" in notes[0]


def test_a_tag_without_a_file_is_named(home: Settings) -> None:
    outside = home.home / "secret.safetensors"
    save_file({"x": torch.ones(1)}, outside)
    request = GenerationRequest(prompt=f"a hat <lora:nothing:0.6><lora:{outside}:1>")
    done, notes = wording.understood(request, home)
    assert done.prompt == "a hat"
    assert done.lora == ()
    assert any("nothing" in note for note in notes)


def test_a_lora_that_was_given_is_not_put_on_twice(home: Settings) -> None:
    request = GenerationRequest(prompt="a hat <lora:ink:0.6>", lora=({"source": "/x/ink.safetensors", "weight": 0.5},))
    done, notes = wording.understood(request, home)
    assert [(entry.source, entry.weight) for entry in done.lora] == [("/x/ink.safetensors", 0.5)]
    assert notes == []


def test_more_than_the_most_are_named(home: Settings) -> None:
    given = tuple({"source": f"{number}.safetensors"} for number in range(5))
    done, notes = wording.understood(GenerationRequest(prompt="<lora:ink:1>", lora=given), home)
    assert len(done.lora) == 5
    assert "ink" in notes[0]


def test_a_host_for_strangers_offers_its_catalogue_only(home: Settings) -> None:
    hosted = home.model_copy(update={"hosted": True})
    done, notes = wording.understood(GenerationRequest(prompt="a hat <lora:ink:0.6>"), hosted)
    assert done.lora == ()
    assert notes


def test_a_request_of_plain_words_is_the_same(home: Settings) -> None:
    request = GenerationRequest(prompt="a red hat", negative_prompt="blurry", seed=3)
    assert wording.understood(request, home) == (request, [])


def test_a_style_of_another_tool_is_taken_apart_as_well(home: Settings) -> None:
    folder = home.home / "style_presets"
    folder.mkdir()
    style = {"name": "Mine", "prompt": "ink <lora:ink:0.4>, {prompt}, [a:b:0.2]", "negative": "easynegative, blurry"}
    (folder / "mine.json").write_text(json.dumps(style))
    request = GenerationRequest(prompt="a hat", style="mine", negative_prompt="red")
    done, notes = wording.understood(request, home)
    said = prepare.words(done, home)
    assert (said.prompt, said.negative) == ("ink, a hat, b", "blurry red")
    assert [(entry.source, entry.weight) for entry in done.lora] == [("ink", 0.4)]
    assert "easynegative" in notes[0]
    assert "[a:b:0.2]" in notes[1]


def test_signs_do_not_hide_words_from_the_filter(home: Settings) -> None:
    engine = Engine(home)
    for prompt in ("nude", "nu<lora:x:1>de", "nu[x:0.9]de", "[nude:dressed:0.1]"):
        with pytest.raises(RequestError, match=r"nude|sexual|allowed"):
            engine.generate(GenerationRequest(model="pocket", face=(PHOTO,), prompt=prompt))


def test_a_workflow_has_the_tags_as_loaders_and_the_clip_skip() -> None:
    request = GenerationRequest(prompt="a hat <lora:ink:0.6>, embedding:foo", clip_skip=2)
    flow = comfyui.workflow(request)
    nodes = {node["type"]: node for node in flow["nodes"]}
    assert nodes["LoraLoader"]["widgets_values"] == ["ink.safetensors", 0.6, 0.6]
    assert nodes["CLIPSetLastLayer"]["widgets_values"] == [-2]
    texts = [node["widgets_values"][0] for node in flow["nodes"] if node["type"] == "CLIPTextEncode"]
    assert texts[0] == "a hat, embedding:foo"
    encoder = nodes["CLIPTextEncode"]["inputs"][0]["link"]
    source = next(link for link in flow["links"] if link[0] == encoder)[1]
    assert source == nodes["CLIPSetLastLayer"]["id"]
    assert "CLIPSetLastLayer" not in {node["type"] for node in comfyui.workflow(GenerationRequest())["nodes"]}


@pytest.fixture(scope="module")
def pipe() -> Any:
    if not (POCKET / "unet").is_dir():
        pytest.skip("Pocket's weights are not in assets/pocket")
    return load_pipeline(POCKET, POCKET / "ControlNetModel", POCKET / "image_adapter.safetensors", device="cpu")


def rows_of(pipe: Any, words: str) -> list[torch.Tensor]:
    """The encoders' own vectors of some words."""
    parts = [(pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)]
    return [
        encoder.get_input_embeddings().weight[tokenizer(words, add_special_tokens=False).input_ids].detach().clone()
        for tokenizer, encoder in parts
    ]


WRITTEN: dict[str, Callable[[list[torch.Tensor], Path], None]] = {
    "look.safetensors": lambda rows, file: save_file({"clip_l": rows[0], "clip_g": rows[1]}, file),
    "look.pt": lambda rows, file: torch.save({"clip_l": rows[0], "clip_g": rows[1]}, file),
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("word", ["look", "embedding:look", "embedding:LOOK"])
def test_an_embedding_says_what_its_vectors_say(pipe: Any, tmp_path: Path, name: str, word: str) -> None:
    """Made of the vectors of known words, it must encode as those words do, weights included."""
    (tmp_path / addons.EMBEDDINGS).mkdir()
    WRITTEN[name](rows_of(pipe, "red hat"), tmp_path / addons.EMBEDDINGS / name)
    files = embeddings.named(f"a ({word}:1.3), snow", addons.embeddings(tmp_path))
    learned, notes = embeddings.read_all(files, pipe)
    assert notes == []
    before = [encoder.get_input_embeddings().weight.clone() for encoder in (pipe.text_encoder, pipe.text_encoder_2)]
    given = prompts.encode(pipe, f"a ({word}:1.3), snow", word, learned=learned)
    expected = prompts.encode(pipe, "a (red hat:1.3), snow", "red hat")
    for key, value in expected.items():
        torch.testing.assert_close(given[key], value)
    after = [encoder.get_input_embeddings().weight for encoder in (pipe.text_encoder, pipe.text_encoder_2)]
    assert all(map(torch.equal, before, after))
    assert not any(
        encoder.get_input_embeddings()._forward_hooks for encoder in (pipe.text_encoder, pipe.text_encoder_2)
    )


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"emb_params": torch.ones(2, 768)}, "SD1.5"),
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, "SDXL"),
        ({"string_to_param.*": torch.ones(2, 9)}, "look.safetensors"),
        ({"x": torch.ones(2, 2, 2)}, "look.safetensors"),
    ],
)
def test_an_embedding_that_does_not_fit_is_named_and_says_nothing(
    pipe: Any, tmp_path: Path, state: dict[str, torch.Tensor], told: str
) -> None:
    (tmp_path / addons.EMBEDDINGS).mkdir()
    save_file(state, tmp_path / addons.EMBEDDINGS / "look.safetensors")
    learned, (note,) = embeddings.read_all(embeddings.named("a look", addons.embeddings(tmp_path)), pipe)
    assert told in note
    given = prompts.encode(pipe, "a look", learned=learned)
    assert torch.equal(given["prompt_embeds"], prompts.encode(pipe, "a ")["prompt_embeds"])


def test_clip_skip_reads_another_layer(pipe: Any) -> None:
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    ids = tokenizer("a red hat", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        layers = encoder(ids, output_hidden_states=True).hidden_states
    width = encoder.config.hidden_size
    for skip, layer in ((-1, -1), (None, -2), (0, -2), (1, -3)):
        states = prompts.encode(pipe, "a red hat", clip_skip=skip)["prompt_embeds"][..., :width]
        torch.testing.assert_close(states, layers[layer])
    with pytest.raises(RequestError, match="3 layers"):
        prompts.encode(pipe, "a red hat", clip_skip=2)
