"""Training pictures: scenes, people before them, styles by their texture, and captions that say what is seen."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from instantid_demo import styles
from instantid_demo.training import captions
from instantid_demo.training.captions import Person, caption, person, planned_words, vocabulary
from instantid_demo.training.faces import Faces
from instantid_demo.training.figures import turned
from instantid_demo.training.labelling import measures
from instantid_demo.training.labelling.labels import Labels
from instantid_demo.training.pictures import draw_picture
from instantid_demo.training.rendered_styles import KEEPS_THE_FACE, KEEPS_THE_GROUND, RENDERERS
from instantid_demo.training.scenes import SCENES

SIZE, SMALL = 160, 128
SKINS = {"light": (225, 180, 160), "dark": (85, 55, 42)}
POINTS = np.array([(58, 70), (102, 70), (80, 95), (64, 115), (96, 115)], np.float32)


def head(skin: str = "light") -> tuple[np.ndarray, np.ndarray]:
    """A head with hair, eyes and a mouth before a green wall, shaded and grainy, and its mask."""
    picture = np.full((SIZE, SIZE, 3), (70, 140, 60), np.uint8)
    person = np.zeros((SIZE, SIZE), np.uint8)
    colour = np.array(SKINS[skin])
    for canvas, value in ((picture, (45, 32, 25)), (person, 255)):
        cv2.ellipse(canvas, (80, 78), (52, 66), 0, 0, 360, value, -1)
        cv2.rectangle(canvas, (30, 140), (130, 160), value, -1)
    cv2.ellipse(picture, (80, 90), (40, 52), 0, 0, 360, colour.tolist(), -1)
    cv2.ellipse(picture, (60, 95), (20, 40), 0, 0, 360, (colour * 0.8).tolist(), -1)
    for x in (58, 102):
        cv2.ellipse(picture, (x, 70), (8, 4), 0, 0, 360, (20, 15, 15), -1)
    cv2.ellipse(picture, (80, 115), (16, 4), 0, 0, 360, (150, 40, 50), -1)
    soft = cv2.GaussianBlur(picture, (0, 0), 1.2).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 3, soft.shape)
    return np.clip(soft + grain, 0, 255).astype(np.uint8), person


def small(skin: str = "light") -> tuple[np.ndarray, np.ndarray]:
    """The 128 picture and its ground."""
    picture, mask = head(skin)
    resized = [cv2.resize(one, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for one in (picture, mask)]
    return resized[0], 1 - resized[1][..., None].astype(np.float32) / 255


def rendered(style: str, seed: int = 0, skin: str = "light") -> np.ndarray:
    picture, ground = small(skin)
    return RENDERERS[style](picture, ground, np.random.default_rng(seed))


def light(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)


def coarse(picture: np.ndarray) -> np.ndarray:
    """What 16×16 latents can hold of a 128 picture."""
    return cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)


# Scenes


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_are_pictures_that_differ_from_draw_to_draw_and_show_at_latent_size(scene):
    first, second = (SCENES[scene](SMALL, np.random.default_rng(seed)) for seed in (1, 2))
    assert (first.dtype, first.shape) == (np.uint8, (SMALL, SMALL, 3))
    assert np.abs(first.astype(float) - second).mean() > 2
    assert scene == "plain wall" or coarse(first).std((0, 1)).mean() > 6


def test_every_two_scenes_differ():
    seen = {
        name: np.mean([coarse(SCENES[name](SMALL, np.random.default_rng(s))) for s in range(6)], 0) for name in SCENES
    }
    names = sorted(seen)
    near = {(a, b): np.abs(seen[a] - seen[b]).mean() for i, a in enumerate(names) for b in names[i + 1 :]}
    assert min(near.values()) > 8, min(near, key=near.get)


def test_scenes_have_the_light_and_colour_of_their_name():
    mean = {
        name: np.mean([SCENES[name](SMALL, np.random.default_rng(s)).mean((0, 1)) for s in range(5)], 0)
        for name in SCENES
    }
    assert mean["space"].mean() < 60
    assert mean["city at night"].mean() < 70
    assert mean["snow"].mean() > 190
    assert mean["jungle"][1] > 1.5 * max(mean["jungle"][0], mean["jungle"][2])
    assert mean["mars"][0] > 1.7 * mean["mars"][2]
    assert np.ptp(mean["studio"]) < 8


# People


@pytest.mark.parametrize("scale", [0.6, 0.8, 1.0])
def test_a_smaller_person_keeps_the_keypoints_on_the_face(scale):
    picture, mask = head()
    figure = turned(picture, mask, POINTS, SMALL, scale, angle=10, shift=(4, -3))
    for x, y in figure.keypoints[:2]:
        assert light(figure.picture)[round(float(y)), round(float(x))] < 90  # dark eyes
    width = np.linalg.norm(figure.keypoints[1] - figure.keypoints[0])
    assert width == pytest.approx(44 * scale * SMALL / SIZE, rel=0.01)


def test_a_smaller_person_stands_free_before_the_scene():
    picture, mask = head()
    figure = turned(picture, mask, POINTS, SMALL, 0.6)
    scene = np.full((SMALL, SMALL, 3), (250, 0, 250), np.uint8)
    shown = figure.before(scene).picture
    near_scene = np.abs(shown.astype(int) - (250, 0, 250)).max(2) < 30
    assert near_scene[:12].all()  # above the head
    assert near_scene[:64, [3, -4]].all()  # beside it
    assert not near_scene[-4:, 40:88].any()  # the shoulders go on to the lower border
    eyes = figure.keypoints[:2].mean(0).astype(int)
    own = np.abs(shown.astype(int) - figure.picture).max(2)
    assert own[eyes[1] : eyes[1] + 20, eyes[0] - 8 : eyes[0] + 8].max() < 20


def test_another_persons_head_in_the_mask_stays_out():
    picture, mask = head()
    mask[20:120, :12] = 255
    figure = turned(picture, mask, POINTS, SMALL, 0.7)
    assert figure.ground[30:80, :20].min() > 0.9


def test_a_head_cut_by_the_upper_border_is_rounded_off():
    picture, mask = head()
    cut = turned(picture[40:].repeat(2, 0)[:SIZE], np.full_like(mask, 255), POINTS, SMALL, 0.6)
    row = int(SMALL / 2 - 0.3 * SMALL) - 4
    on = cut.ground[row, :, 0] < 0.5
    assert 0 < on.sum() < 0.6 * SMALL  # narrower than the photograph above it


# Styles


@pytest.mark.parametrize("style", RENDERERS)
def test_styles_return_pictures_of_the_same_shape_and_show_at_latent_size(style):
    picture, _ = small()
    styled = rendered(style)
    assert (styled.dtype, styled.shape) == (np.uint8, picture.shape)
    texture = np.abs(styled.astype(float) - picture).mean()
    assert texture > (4 if style == "black and white" else 9)


def test_every_preset_has_a_renderer():
    short = {style.short or style.key for key, style in styles.load().items() if key != "none"}
    assert short <= set(RENDERERS)
    assert set(RENDERERS) > KEEPS_THE_FACE
    assert set(RENDERERS) > KEEPS_THE_GROUND


def test_no_two_styles_look_alike():
    seen = {style: np.mean([rendered(style, seed).astype(np.float32) for seed in range(3)], 0) for style in RENDERERS}
    names = sorted(seen)
    near = {(a, b): np.abs(seen[a] - seen[b]).mean() for i, a in enumerate(names) for b in names[i + 1 :]}
    assert min(near.values()) > 6, min(near, key=near.get)


@pytest.mark.parametrize("style", RENDERERS)
def test_faces_of_light_and_dark_skin_both_stay_visible(style):
    for skin in SKINS:
        inner = light(rendered(style, skin=skin))[40:105, 35:93]
        assert inner.std() > 10, skin


def test_pixel_art_is_made_of_squares():
    styled = rendered("pixel art").astype(int)
    for axis in (0, 1):
        steps = np.abs(np.diff(styled, axis=axis)).sum(2)
        inside = np.take(steps, [i for i in range(SMALL - 1) if i % 4 != 3], axis)
        assert inside.max() == 0


@pytest.mark.parametrize("style", ["pencil sketch", "pastel"])
def test_hatching_runs_in_few_directions_wide_enough_for_latents(style):
    grey = light(rendered(style))
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(grey - cv2.GaussianBlur(grey, (0, 0), 4)))) ** 2
    y, x = np.mgrid[-64:64, -64:64]
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(y, x)) % 180
    ring = (radius > 17) & (radius < 34)  # periods of 3.8 to 7.5 pixels
    assert spectrum[ring].sum() > 0.25 * spectrum[radius > 8].sum()
    share = np.histogram(angle[ring], 9, (0, 180), weights=spectrum[ring])[0] / spectrum[ring].sum()
    assert np.sort(share)[-2:].sum() > 0.34  # one direction, crossed in the shadows; 0.22 without any


def test_pop_art_has_few_inks_and_dots():
    styled = rendered("pop art")[45:105, 40:90]
    shades = {tuple(pixel) for pixel in (styled // 32).reshape(-1, 3).tolist()}
    assert len(shades) < 60
    assert len({tuple(pixel) for pixel in (small()[0] // 8).reshape(-1, 3).tolist()}) > len(shades)


@pytest.mark.parametrize("style", ["low key", "neon", "film noir", "cyberpunk"])
def test_light_comes_from_a_side(style):
    grey = rendered(style)[45:95].astype(np.float32)
    sides = grey[:, 36:56].mean((0, 1)), grey[:, 72:92].mean((0, 1))
    assert np.abs(sides[0] - sides[1]).max() > 20


@pytest.mark.parametrize("style", ["jungle", "mars", "snow", "cyberpunk", "golden hour", "pop art", "studio portrait"])
def test_scene_styles_replace_the_ground_and_keep_the_person(style):
    picture, ground = small()
    behind = ground[..., 0] > 0.99
    first, second = rendered(style, 1).astype(float), rendered(style, 2).astype(float)
    assert np.abs(first - picture)[behind].mean() > 20
    assert np.abs(first - second)[behind].mean() > 4


@pytest.mark.parametrize("style", ["line art", "comic", "blueprint"])
def test_outlined_styles_draw_the_outline_of_the_person(style):
    styled, plain = light(rendered(style)), light(small()[0])
    edge = cv2.morphologyEx((small()[1] > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))[:100] > 0
    around = cv2.dilate(edge.astype(np.uint8), np.ones((9, 9))) > 0
    difference = abs(styled[:100][edge].mean() - styled[:100][around & ~edge].mean())
    assert difference > 25
    assert difference > abs(plain[:100][edge].mean() - plain[:100][around & ~edge].mean())


# Captions


def labels_of(count: int = 1, **answers: int) -> Labels:
    words = ("smile", "laugh", "sad", "angry", "serious", "glasses", "sunglasses", "beard", "moustache", "bald", "grey")
    words += ("blond", "brown", "dark", "hat", "scarf", "lipstick", "hand", "black and white", "frontal")
    return Labels(
        {word: np.full(count, answers.get(word.replace(" ", "_"), 0), np.int8) for word in words},
        np.zeros((count, len(measures.NAMES)), np.float32),
        np.full(count, 30, np.float32),
        np.repeat(head()[1][None], count, 0),
        np.ones(count, bool),
        np.ones(count, bool),
        np.zeros(count, np.uint8),
        np.ones(count, np.float32),
    )


def said(who: Person, style: str | None = None, scene: str | None = None, count: int = 300) -> list[str]:
    draw = np.random.default_rng(0)
    return [caption(who, style, scene, draw) for _ in range(count)]


def test_captions_use_planned_words_alone_and_nearly_all_of_them():
    draw, known, used = np.random.default_rng(3), set(planned_words()), set()
    traits = tuple(captions._AFTER)
    for _ in range(12000):
        who = Person(
            str(draw.choice(["man", "woman"])),
            str(draw.choice(list(captions._AGES))),
            tuple(trait for trait in traits if draw.random() < 0.3),
            bool(draw.random() < 0.1),
        )
        style = str(draw.choice(list(RENDERERS))) if draw.random() < 0.5 else None
        scene = str(draw.choice(list(SCENES))) if draw.random() < 0.5 else None
        used |= set(vocabulary([caption(who, style, scene, draw)]))
    assert used <= known
    measured = set(vocabulary(captions._MEASURED))
    assert known - used - measured <= {"kind", "who"}


def test_words_of_likely_prompts_are_planned():
    asked = "smile laugh sad glasses sunglasses beard bald blond dark grey hair hat lipstick young old passport photo"
    asked += " black and white beach city garden snow office space anime oil pencil sepia neon comic mars jungle studio"
    assert set(asked.split()) <= set(planned_words())


@pytest.mark.parametrize("word", ["smile", "glasses", "beard", "blond", "hat", "lipstick", "sunglasses", "bald", "sad"])
def test_a_label_is_said_often_but_not_always_and_only_where_it_holds(word):
    phrases = (*captions._AFTER[word], *captions._BEFORE.get(word, ()))
    share = np.mean([any(phrase in text for phrase in phrases) for text in said(Person("woman", "30-39", (word,)))])
    assert 0.4 < share < 0.85
    assert not any(phrase in text for phrase in captions._AFTER[word] for text in said(Person("woman", "30-39")))


def test_several_things_are_said_of_one_person_but_never_everything():
    traits = ("smile", "glasses", "beard", "grey", "hat")
    texts = said(Person("man", "60-69", traits))
    counts = [
        sum(any(p in text for p in (*captions._AFTER[t], *captions._BEFORE.get(t, ()))) for t in traits)
        for text in texts
    ]
    assert max(counts) == 3
    assert min(counts) == 0
    assert len(set(texts)) > 250


def test_labels_become_traits_without_contradictions():
    who = person("man", "30-39", labels_of(smile=1, laugh=1, beard=1, moustache=1), 0)
    assert set(who.traits) == {"laugh", "beard"}
    assert "shaved" in person("man", "30-39", labels_of(), 0).traits
    assert "shaved" not in person("woman", "30-39", labels_of(), 0).traits
    assert "shaved" not in person("man", "30-39", labels_of(beard=-1), 0).traits
    grey = person("woman", "30-39", labels_of(black_and_white=1, blond=1, lipstick=1), 0)
    assert grey.monochrome
    assert grey.traits == ()


def test_scenes_and_styles_are_named_and_hidden_scenes_are_not():
    who = Person("woman", "20-29")
    assert np.mean([any(p in text for p in captions._PLACES["beach"]) for text in said(who, None, "beach")]) > 0.85
    assert all("sepia" in text for text in said(who, "sepia"))
    places = [p for p in captions._PLACES["library"] if p != "with books"]
    assert any(p in text for p in places for text in said(who, "oil painting", "library"))
    assert not any(p in text for p in places for text in said(who, "comic", "library"))


def test_colours_of_hair_and_lips_are_not_said_where_the_style_has_none():
    who = Person("woman", "20-29", ("blond", "lipstick"))
    assert not any("blond" in text or "lipstick" in text for text in said(who, "pencil sketch"))
    assert any("blond" in text for text in said(who, "oil painting"))


def test_passport_photos_are_plain_frontal_and_serious():
    plain = Person("man", "30-39", ("frontal", "serious"))
    assert any("passport" in text for text in said(plain, None, "plain wall"))
    for who, scene in (
        (plain, "beach"),
        (plain, None),
        (Person("man", "30-39", ("frontal", "smile")), "plain wall"),
        (Person("man", "30-39", ("serious",)), "plain wall"),
    ):
        assert not any("passport" in text for text in said(who, None, scene))


def test_background_colours_are_said_where_enough_of_an_even_one_is_seen():
    picture, ground = small()
    assert "green background" in captions.measured(picture, ground)
    assert not any("background" in word for word in captions.measured(picture, np.zeros_like(ground)))


# All together


def faces_of(count: int = 3) -> Faces:
    mirrored = POINTS[[1, 0, 2, 4, 3]].copy()
    mirrored[:, 0] = SIZE - 1 - mirrored[:, 0]
    return Faces(
        np.repeat(head()[0][None], count, 0),
        np.repeat(np.stack([POINTS, mirrored])[None], count, 0),
        np.zeros((count, 2, 128), np.float32),
        np.zeros(128, np.float32),
        ["man"] * count,
        ["30-39"] * count,
    )


def test_pictures_keep_eyes_at_their_keypoints_and_say_what_they_show():
    faces, labels, draw = faces_of(), labels_of(3, frontal=1, serious=1), np.random.default_rng(1)
    drawn = [draw_picture(faces, labels, 0, False, True, draw) for _ in range(120)]
    for one in drawn:
        for x, y in one.keypoints[:2]:
            assert light(one.picture)[round(float(y)), round(float(x))] < 110
    scenes = [one.scene for one in drawn]
    assert 0.3 < np.mean([scene is not None for scene in scenes]) < 0.7
    assert len(set(scenes)) > 8
    assert all(not any(p in one.caption for p in captions._PLACES["mars"]) for one in drawn if one.scene != "mars")
    spans = [np.linalg.norm(one.keypoints[1] - one.keypoints[0]) for one in drawn]
    assert min(spans) < 0.7 * max(spans)  # some people stand farther away
    assert {one.mirror for one in drawn} == {True, False}


def test_photographs_without_a_trustworthy_mask_get_no_scene_and_stay_large():
    labels = replace(labels_of(), cut_out=np.zeros(1, bool))
    draw = np.random.default_rng(1)
    drawn = [draw_picture(faces_of(1), labels, 0, False, True, draw) for _ in range(40)]
    assert all(one.scene is None for one in drawn)
    assert min(np.linalg.norm(one.keypoints[1] - one.keypoints[0]) for one in drawn) > 33


def test_styled_pictures_name_their_style_and_judges_see_faithful_ones_alone():
    draw = np.random.default_rng(2)
    drawn = [draw_picture(faces_of(1), labels_of(), 0, True, True, draw) for _ in range(150)]
    assert {one.style for one in drawn} == set(RENDERERS)
    assert all(one.style is not None and one.style in one.caption for one in drawn)
    assert all(one.style in KEEPS_THE_FACE for one in drawn if one.judged)
    assert any(one.judged for one in drawn)
