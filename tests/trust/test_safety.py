"""What the filter refuses, what it lets pass, and how it is told."""

import numpy as np
import pytest
from PIL import Image

from instantid_demo import guards, safety
from instantid_demo.prepare import Words
from instantid_demo.request import GenerationRequest, RequestError
from instantid_demo.settings import Settings


@pytest.mark.parametrize(
    "text",
    [
        *("nude woman", "a naked man", "n4ked", "n u d e", "nu.de portrait", "(nudity:1.3)", "p0rn star", "topless"),
        *("nackte Frau", "mujer desnuda", "裸体の女性", "色情图片", "sexy teen girl", "a 15 year old in lingerie"),
    ],
)
def test_unsafe_words_are_refused(text: str) -> None:
    assert not safety.check_prompt(text).allowed


@pytest.mark.parametrize(
    "text",
    [
        *("a photo of a person", "Essex at sunset", "nude lipstick", "visible to the naked eye", "a boy with a kite"),
        *(
            "middlesex county, sextant",
            "explicit detail",
            "ein Kind im Park",
            "一个女孩的肖像",
            "a (red:1.2) dress",
            "assassin",
        ),
    ],
)
def test_harmless_words_pass(text: str) -> None:
    assert safety.check_prompt(text).allowed


def test_less_passes_where_the_face_is_a_childs() -> None:
    assert safety.check_prompt("sexy dress").allowed
    assert not safety.check_prompt("sexy dress", child=True).allowed
    assert safety.check_prompt("a birthday party", child=True).allowed


def test_the_host_decides() -> None:
    request, words = GenerationRequest(prompt="nude"), Words("nude", "")
    with pytest.raises(RequestError, match="not allowed"):
        guards.check_words(request, words, Settings())
    guards.check_words(request, words, Settings(safety=False))


def test_an_unsafe_picture_is_blurred_and_explained() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    verdict = safety.check_picture(picture, lambda _: 0.9)
    assert not verdict.allowed
    assert "blurred" in verdict.reason
    assert np.asarray(safety.blur(picture)).std() < np.asarray(picture).std() / 3
    assert safety.check_picture(picture, lambda _: 0.1).allowed
    assert safety.check_picture(picture, None).allowed


def test_a_real_classifier_is_read_from_a_folder(tmp_path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    names = {0: "normal", 1: "nsfw"}
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, id2label=names
    )
    network = ViTForImageClassification(config)
    network.classifier.weight.data.zero_()
    network.classifier.bias.data[:] = network.classifier.bias.data.new_tensor([0.0, 5.0])
    network.save_pretrained(tmp_path / "nsfw")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "nsfw")
    classifier = safety.classifier_for("sdxl", tmp_path)
    assert classifier is not None
    assert classifier(Image.new("RGB", (50, 50))) > 0.9
    assert safety.classifier_for("pocket", tmp_path) is None


def test_a_missing_filter_is_told(tmp_path) -> None:
    with pytest.raises(RequestError, match="picture filter"):
        safety.classifier_for("sdxl", tmp_path)
