"""antelopev2's road through the real insightface, over small networks that know one face: red above, blue below."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from instantid_demo.faces import turns
from instantid_demo.faces.antelope import AntelopeAnalyser

EYES = 96
"""Pixels between the eyes that the detector reports in a picture as large as it looks at it."""
PLACE = (280, 208)
"""Left and upper corner of the face in `scene`."""


def scene(scale: int = 1) -> Image.Image:
    """640×480, the face 64 pixels wide; around it a pattern, so that crops of it differ when they are turned."""
    y, x = np.mgrid[:480, :640]
    ground = np.stack([x * 0 + 20, 40 + 60 * np.sin(x / 90), 40 + 60 * np.cos(y / 70)], -1)
    ground[..., [0, 2]] = 20
    ground[PLACE[1] : PLACE[1] + 32, PLACE[0] : PLACE[0] + 64] = (255, 0, 0)
    ground[PLACE[1] + 32 : PLACE[1] + 64, PLACE[0] : PLACE[0] + 64] = (0, 0, 255)
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    return picture.resize((640 * scale, 480 * scale), Image.Resampling.NEAREST)


def save(file: Path, nodes: list, tensors: dict[str, np.ndarray], shape: list, outputs: dict[str, list]) -> None:
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def detector(file: Path, least: int, most: int) -> None:
    """A detector with SCRFD's nine outputs.

    It is sure (0.95) of a face that stands upright, and takes one on its head (0.6) or side (0.55) for upright too.
    In pictures narrower than `least` or wider than `most` it finds nothing.
    """
    node = helper.make_node
    weights = np.zeros((2, 3, 2, 2), np.float32)
    weights[0, :, 0, 0], weights[0, :, 1, 0] = (1, 0, -1), (-1, 0, 1)
    weights[1, :, 0, 0], weights[1, :, 0, 1] = (1, 0, -1), (-1, 0, 1)
    box = np.full((1, 4), 30, np.float32)
    points = np.array([[-6, -4, 6, -4, 0, 0, -4, 6, 4, 6]], np.float32)
    tensors: dict[str, np.ndarray] = {
        "weights": weights,
        "three": np.array(3, np.int64),
        "least": np.array(least, np.int64),
        "most": np.array(most, np.int64),
        "clear": np.array(2.5, np.float32),
        "unclear": np.array(-2.5, np.float32),
        "column": np.array([-1, 1], np.int64),
        "no": np.array(0, np.float32),
        **{name: np.array(value, np.float32) for name, value in (("sure", 0.95), ("head", 0.6), ("side", 0.55))},
    }
    nodes = [
        node("Shape", ["input"], ["shape"]),
        node("Gather", ["shape", "three"], ["width"]),
        node("GreaterOrEqual", ["width", "least"], ["wide"]),
        node("LessOrEqual", ["width", "most"], ["narrow"]),
        node("And", ["wide", "narrow"], ["looks"]),
        node("Cast", ["looks"], ["gate"], to=TensorProto.FLOAT),
    ]
    outputs: dict[str, list] = {}
    for stride in (8, 16, 32):
        own = lambda name, stride=stride: f"{name}{stride}"  # noqa: E731
        gate = "gate" if stride == 8 else "no"
        nodes += [
            node("AveragePool", ["input"], [own("mean")], kernel_shape=[stride] * 2, strides=[stride] * 2),
            node("Conv", [own("mean"), "weights"], [own("edge")], kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
            node("Split", [own("edge")], [own("down"), own("across")], axis=1),
            node("Abs", [own("across")], [own("beside")]),
        ]
        for name, operator, level, source, value in (
            ("sure", "Greater", "clear", "down", "sure"),
            ("head", "Less", "unclear", "down", "head"),
            ("side", "Greater", "clear", "beside", "side"),
        ):
            nodes += [
                node(operator, [own(source), level], [own(f"is-{name}")]),
                node("Cast", [own(f"is-{name}")], [own(f"as-{name}")], to=TensorProto.FLOAT),
                node("Mul", [own(f"as-{name}"), value], [own(f"says-{name}")]),
            ]
        nodes += [
            node("Max", [own("says-sure"), own("says-head"), own("says-side")], [own("any")]),
            node("Mul", [own("any"), gate], [own("one")]),
            node("Concat", [own("one"), own("one")], [own("both")], axis=1),
            node("Transpose", [own("both")], [own("last")], perm=[0, 2, 3, 1]),
            node("Reshape", [own("last"), "column"], [own("score")]),
            node("Mul", [own("score"), "no"], [own("zero")]),
        ]
        for name, value in (("box", box), ("points", points)):
            tensors[own(f"{name}-of")] = value
            nodes.append(node("Add", [own("zero"), own(f"{name}-of")], [own(name)]))
    for name, size in (("score", 1), ("box", 4), ("points", 10)):
        outputs |= {f"{name}{stride}": ["n", size] for stride in (8, 16, 32)}
    save(file, nodes, tensors, [1, 3, "h", "w"], outputs)


def recogniser(file: Path) -> None:
    """112×112 pixels to 512 numbers of about glintr100's length, by their colours in a coarse grid."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["mean"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("MatMul", ["row", "mix"], ["embedding"]),
    ]
    mix = rng.normal(size=(588, 512)).astype(np.float32) / 24
    save(file, nodes, {"mix": mix}, ["n", 3, 112, 112], {"embedding": ["n", 512]})


def ages(file: Path) -> None:
    """96×96 pixels to two numbers for the gender and a hundredth of 34 years."""
    nodes = [
        helper.make_node("Flatten", ["input"], ["row"]),
        helper.make_node("MatMul", ["row", "none"], ["zero"]),
        helper.make_node("Add", ["zero", "age"], ["answer"]),
    ]
    none = np.zeros((3 * 96 * 96, 3), np.float32)
    age = np.array([[0, 1, 0.34]], np.float32)
    save(file, nodes, {"none": none, "age": age}, ["n", 3, 96, 96], {"answer": ["n", 3]})


def analyser(folder: Path, least: int = 0, most: int = 10**6) -> tuple[AntelopeAnalyser, list[tuple[int, int]]]:
    """With the sizes at which it looks, as they come."""
    detector(folder / "scrfd_10g_bnkps.onnx", least, most)
    recogniser(folder / "glintr100.onnx")
    ages(folder / "genderage.onnx")
    made, sizes = AntelopeAnalyser(folder), []
    usual = made._app.det_model.forward

    def forward(pixels: np.ndarray, threshold: float) -> object:
        sizes.append(pixels.shape[1::-1])
        return usual(pixels, threshold)

    made._app.det_model.forward = forward
    return made, sizes


def test_a_face_is_found_with_its_embedding_and_age_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made, sizes = analyser(tmp_path)
    (face,) = made.detect(scene())
    assert sizes == [(640, 640)]
    assert np.allclose(face.keypoints[1] - face.keypoints[0], (EYES, 0))
    assert face.score == pytest.approx(0.95)
    assert face.embedding.shape == (512,)
    assert face.age == 34
    assert np.allclose(face.embedding, made.embed(scene(), face.keypoints), atol=1e-3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("least", "most", "looked"), [(0, 320, [640, 320]), (1280, 10**6, [640, 320, 1280])])
def test_every_size_is_really_tried(tmp_path: Path, least: int, most: int, looked: list[int]) -> None:
    made, sizes = analyser(tmp_path, least, most)
    assert len(made.detect(scene())) == 1
    assert list(dict.fromkeys(width for width, _ in sizes)) == looked


def test_no_face_is_no_face(tmp_path: Path) -> None:
    made, _ = analyser(tmp_path, most=0)
    assert made.detect(scene()) == []


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_photo_is_the_same_person(tmp_path: Path, quarters: int) -> None:
    made, sizes = analyser(tmp_path)
    (upright,) = made.detect(scene())
    sizes.clear()
    (face,) = made.detect(turns.turned_picture(scene(), quarters))
    assert len(sizes) <= 4
    assert np.abs(face.keypoints - turns.turned(upright.keypoints, quarters, (640, 480))).max() < 1
    assert turns.quarters_of([face]) == -quarters % 4
    cosine = face.embedding @ upright.embedding
    assert cosine / np.linalg.norm(face.embedding) / np.linalg.norm(upright.embedding) > 0.99


def test_a_large_photo_is_the_same_person(tmp_path: Path) -> None:
    made, _ = analyser(tmp_path)
    (small,), (large,) = made.detect(scene()), made.detect(scene(6))
    assert np.abs(large.keypoints / 6 - small.keypoints).max() < 1
    cosine = large.embedding @ small.embedding
    assert cosine / np.linalg.norm(large.embedding) / np.linalg.norm(small.embedding) > 0.98


def test_cuda_is_asked_for_only_where_it_is(tmp_path: Path) -> None:
    import torch

    made, _ = analyser(tmp_path)
    wanted = torch.cuda.is_available()
    for model in made._app.models.values():
        assert ("CUDAExecutionProvider" in model.session.get_providers()) == wanted
