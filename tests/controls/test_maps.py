"""Control maps follow the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instantid_demo.controls import maps
from instantid_demo.faces.offline import CHIP_KEYPOINTS
from instantid_demo.request import RequestError


def test_edges_are_where_the_picture_changes() -> None:
    picture = Image.new("RGB", (64, 64))
    picture.paste((255, 255, 255), (32, 0, 64, 64))
    edges = np.asarray(maps.draw("canny", picture))
    assert edges[:, 30:34].max() == 255
    assert edges[:, :28].max() == edges[:, 40:].max() == 0


def test_depth_and_pose_stand_where_the_face_stands() -> None:
    points = CHIP_KEYPOINTS * 40 + (100, 60)
    depth = np.asarray(maps.head_depth((240, 200), points))[..., 0]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    assert abs(x - points[:, 0].mean()) < 12
    assert abs(y - points[:, 1].mean()) < 12
    assert depth[5, 5] == 0
    bones = np.asarray(maps.skeleton((240, 200), points)).any(2)
    assert bones[int(points[2, 1]), int(points[2, 0])]


def test_a_real_portrait_gives_all_three(portraits: list[Path]) -> None:
    portrait = Image.open(portraits[0])
    for kind in ("canny", "depth", "pose"):
        drawn = maps.draw(kind, portrait)
        assert drawn.size == portrait.size
        assert np.asarray(drawn).std() > 5
    with pytest.raises(RequestError, match="face"):
        maps.draw("pose", Image.new("RGB", (100, 100)))


def test_the_depth_estimator_is_used_once_it_is_here(tmp_path: Path) -> None:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        out_indices=[1, 2],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8],
        reassemble_factors=[4, 2],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path / "depth")
    DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path / "depth")
    (tmp_path / "depth" / ".complete").touch()
    drawn = maps.draw(
        "depth", Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)), tmp_path
    )
    assert drawn.size == (60, 40)


def test_the_pose_estimator_is_used_once_it_is_here(
    tmp_path: Path, portraits: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from controlnet_aux.open_pose import body
    from controlnet_aux.open_pose.model import bodypose_model

    torch.manual_seed(0)
    (tmp_path / "openpose").mkdir()
    # In the file the names lack the part of the network that a layer belongs to.
    weights = {name.split(".", 1)[1]: weight for name, weight in bodypose_model().state_dict().items()}
    torch.save(weights, tmp_path / "openpose" / "body_pose_model.pth")
    (tmp_path / "openpose" / ".complete").touch()
    picture = Image.open(portraits[0]).convert("RGB").resize((96, 128))
    unseen = maps.draw("pose", picture, tmp_path)
    assert np.array_equal(np.asarray(unseen), np.asarray(maps.draw("pose", picture)))

    def standing(self: body.Body, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = np.array([[10.0 + number, 5.0 + 6 * number, 1.0, number] for number in range(18)])
        return parts, np.array([[*range(18), 30.0, 18.0]])

    monkeypatch.setattr(body.Body, "__call__", standing)
    assert np.asarray(maps.draw("pose", picture, tmp_path)).any()
    assert not np.array_equal(np.asarray(maps.draw("pose", picture, tmp_path)), np.asarray(unseen))
