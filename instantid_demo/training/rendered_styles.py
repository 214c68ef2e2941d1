"""Looks that OpenCV and NumPy can give to a photograph, so that Pocket learns what style words mean.

Every renderer takes `(picture (h, w, 3) uint8 RGB, ground (h, w, 1) float 0..1, draw)` and returns a picture
of the same shape; `ground` is 1 where the background is, 0 on the person. Each look has a texture or a composition of
its own (strokes, outlines, dots, blocks, light from a side), several pixels wide: a mere tint does not survive latents.
"""

from collections.abc import Callable

import cv2
import numpy as np

from instantid_demo.training import scenes

Renderer = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
Colour = tuple[float, float, float]


def background(keypoints: np.ndarray, size: int) -> np.ndarray:
    """Soft mask `(size, size, 1)` of what lies outside the head, from keypoints `(5, 2)` in pixels."""
    eyes, mouth = keypoints[:2].mean(0), keypoints[3:].mean(0)
    down = mouth - eyes
    length = float(np.hypot(*down)) + 1e-6
    centre = eyes + 0.35 * down
    y, x = np.mgrid[:size, :size].astype(np.float32)
    along = ((x - centre[0]) * down[0] + (y - centre[1]) * down[1]) / length
    across = ((x - centre[0]) * -down[1] + (y - centre[1]) * down[0]) / length
    radius = np.sqrt((along / (1.75 * length)) ** 2 + (across / (1.35 * length)) ** 2)
    return np.clip((radius - 0.9) / 0.25, 0, 1)[..., None]


def _u8(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(_u8(grey)[..., None], 3, 2)


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _tone(picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Lightness `(h, w)` 0..1, stretched so that the person of any skin uses the whole range."""
    grey = cv2.GaussianBlur(_grey(picture), (0, 0), 0.7).astype(np.float32)
    seen = grey[ground[..., 0] < 0.5]
    low, high = np.percentile(seen if len(seen) > 50 else grey, (4, 93))
    return np.clip((grey - low) / (high - low + 8), 0, 1)


def _tint(share: np.ndarray, dark: Colour, light: Colour) -> np.ndarray:
    return np.array(dark, np.float32) * (1 - share[..., None]) + np.array(light, np.float32) * share[..., None]


def _contrast(picture: np.ndarray, gain: float, shift: float = 0) -> np.ndarray:
    # Around the picture's own mean: around middle grey dark skin would sink into black.
    mean = float(picture.mean())
    return _u8((picture.astype(np.float32) - mean) * gain + mean + shift)


def _saturate(picture: np.ndarray, gain: float, least: float = 0) -> np.ndarray:
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = np.clip(np.maximum(hsv[..., 1] * gain, least), 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def _vivid(hue: float, saturation: int = 210, value: int = 235) -> np.ndarray:
    """A strong colour; `hue` in 0..1."""
    pixel = np.array([[[int(hue * 180) % 180, saturation, value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _smooth(picture: np.ndarray, rounds: int = 2) -> np.ndarray:
    for _ in range(rounds):
        picture = cv2.bilateralFilter(picture, 5, 45, 4)
    return picture


def _ink(picture: np.ndarray, ground: np.ndarray, width: float, least: float = 0.035) -> np.ndarray:
    """Lines `(h, w)` 0..1 along dark ridges and edges, and around the person; `width` about half of theirs."""
    tone = _tone(picture, ground)
    edge = cv2.GaussianBlur(tone, (0, 0), width) - cv2.GaussianBlur(tone, (0, 0), 2.2 * width)
    outline = cv2.morphologyEx(
        (cv2.GaussianBlur(ground, (0, 0), 1.5) > 0.5).astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))
    )
    lines = np.clip((-edge - least) * 22, 0, 1) * np.clip(1.15 - ground[..., 0], 0, 1)
    return np.maximum(lines, cv2.GaussianBlur(outline, (0, 0), 0.6))


def _stripes(size: int, angle: float, period: float, phase: float | np.ndarray = 0) -> np.ndarray:
    """A wave `(size, size)` in -1..1 that runs along `angle` degrees."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    along = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    return np.sin(along * (2 * np.pi / period) + phase)


def _dots(dark: np.ndarray, period: float) -> np.ndarray:
    """Halftone dots `(h, w)` 0..1 on a slanting grid, larger where `dark` (0..1) is."""
    size = len(dark)
    grid = (_stripes(size, 45, period) + _stripes(size, 135, period) + 2) / 4
    return np.clip((dark - grid) * 7 + 0.5, 0, 1)


def _rays(size: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """Wedges `(size, size, 1)` of 0 and 1 around the middle."""
    y, x = np.mgrid[:size, :size].astype(np.float32) - size / 2
    return (np.sin(np.arctan2(y, x) * count + draw.uniform(0, 6.28)) > 0).astype(np.float32)[..., None]


def _direction(picture: np.ndarray) -> np.ndarray:
    """Angle `(h, w)` in radians along which the picture changes least: the way of a brush."""
    grey = cv2.GaussianBlur(_grey(picture), (0, 0), 1.5).astype(np.float32)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    both = [cv2.GaussianBlur(product, (0, 0), 4) for product in (across * down, across**2 - down**2)]
    return 0.5 * np.arctan2(2 * both[0], both[1]) + np.pi / 2


def _brushed(
    canvas: np.ndarray,
    colours: np.ndarray,
    spacing: int,
    length: float,
    width: int,
    uneven: float,
    draw: np.random.Generator,
) -> np.ndarray:
    """Strokes over `canvas` on a shaken grid, coloured as `colours` is there and laid along its forms."""
    size = len(canvas)
    angle = _direction(colours)
    y, x = (i.ravel() for i in np.mgrid[0:size:spacing, 0:size:spacing])
    at = np.stack([x, y], 1) + draw.integers(-spacing // 2, spacing // 2 + 1, (len(x), 2))
    at = np.clip(at[draw.permutation(len(at))], 0, size - 1)
    turn = angle[at[:, 1], at[:, 0]] + draw.normal(0, 0.25, len(at))
    half = 0.5 * length * draw.uniform(0.7, 1.2, (len(at), 1)) * np.stack([np.cos(turn), np.sin(turn)], 1)
    light = draw.normal(0, uneven, (len(at), 1))
    paint = np.clip(colours[at[:, 1], at[:, 0]].astype(np.float32) + light, 0, 255)
    canvas = canvas.copy()
    ends = np.concatenate([at - half, at + half], 1).astype(int).tolist()
    for (x0, y0, x1, y1), colour in zip(ends, paint.tolist(), strict=True):
        cv2.line(canvas, (x0, y0), (x1, y1), colour, width, cv2.LINE_AA)
    return canvas


def _vignette(size: int, inner: float, outer: float) -> np.ndarray:
    """`(size, size, 1)`: 1 in the middle, 0 from `outer` half sizes on."""
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size * 2 - 1
    return np.clip((outer - np.hypot(x, y)) / (outer - inner), 0, 1)[..., None]


def _side_light(size: int, draw: np.random.Generator) -> np.ndarray:
    """Ramp `(size, size, 1)` 0..1 from one side to the other."""
    x = np.linspace(0, 1, size, dtype=np.float32)
    x = x if draw.random() < 0.5 else x[::-1]
    return np.repeat(np.clip(x * 1.5 - 0.25, 0, 1)[None, :, None], size, 0)


def _rim(ground: np.ndarray, sigma: float) -> np.ndarray:
    """Light `(h, w, 1)` 0..1 that creeps around the person's outline onto the person."""
    return cv2.GaussianBlur(ground, (0, 0), sigma)[..., None] * (1 - ground) * 2


def _before(picture: np.ndarray, ground: np.ndarray, scene: np.ndarray) -> np.ndarray:
    return picture.astype(np.float32) * (1 - ground) + scene.astype(np.float32) * ground


def film_noir(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Hard light from a side, the shadow of blinds, no colour."""
    tone = np.clip((_tone(p, g)[..., None] - 0.5) * 1.5 + 0.42, 0, 1)
    blinds = np.clip(_stripes(len(p), 90 + d.uniform(-14, 14), d.uniform(14, 20), d.uniform(0, 6))[..., None] * 4, 0, 1)
    light = (0.4 + 0.6 * blinds) * (0.4 + 0.75 * _side_light(len(p), d))
    wall = 0.62 * blinds * _side_light(len(p), d)
    return _rgb(255 * (tone * (0.3 + 0.7 * light) * (1 - g) + wall * g)[..., 0])


def black_and_white(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Rich greys with grain."""
    grain = cv2.GaussianBlur(d.normal(0, 16, p.shape[:2]).astype(np.float32), (0, 0), 0.7)
    return _rgb(_contrast(_grey(p), 1.12).astype(np.float32) + grain)


def sepia(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Brown print, the picture an oval that fades into paper, with scratches."""
    size = len(p)
    oval = _vignette(size, 0.85, 1.2)[..., 0]
    tone = np.clip(_contrast(_grey(p), 1.15, 8).astype(np.float32) / 255, 0, 1) * oval + 0.94 * (1 - oval)
    for x in d.integers(0, size, 3).tolist():
        cv2.line(tone, (x, 0), (x + int(d.integers(-6, 7)), size), 0.95, 1, cv2.LINE_AA)
    tone += cv2.GaussianBlur(d.normal(0, 0.06, (size, size)).astype(np.float32), (0, 0), 0.7)
    return _u8(_tint(np.clip(tone, 0, 1), (38, 18, 4), (255, 230, 185)))


def vintage_photo(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """A faded print with a pale border, grain, and orange light that leaked in from a side."""
    size = len(p)
    faded = _saturate(p, 0.6).astype(np.float32) * (0.74, 0.7, 0.58) + (58, 50, 44)
    leak = (
        np.clip(1 - np.abs(np.linspace(0, 1, size) - d.choice((0.0, 1.0))) / d.uniform(0.3, 0.5), 0, 1)[None, :, None]
        ** 1.3
    )
    leak = leak * (0.5 + 0.5 * scenes.noise(size, 3, d)[..., None])
    faded = faded * (1 - 0.8 * leak) + np.array((255, 150, 60)) * 0.8 * leak + d.normal(0, 7, (size, size, 1))
    border = size // 20
    faded[:border] = faded[-border:] = faded[:, :border] = faded[:, -border:] = (238, 230, 210)
    return _u8(faded)


def pencil_sketch(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Grey hatching on white paper, crossed in the shadows, and loose outlines."""
    size, tone = len(p), _tone(p, g)
    tone = np.maximum(tone, 0.75 * g[..., 0])
    angle, period = d.uniform(30, 60), d.uniform(4.2, 5.2)
    wobble = 3 * scenes.noise(size, 6, d)
    dark = np.zeros((size, size), np.float32)
    for turn, below in ((0, 0.72), (0, 0.42), (80, 0.26)):
        lines = np.clip(_stripes(size, angle + turn, period, wobble + below * 9) * 1.6 - 0.2, 0, 1)
        dark = np.maximum(dark, lines * np.clip((below - tone) * 5, 0, 1) * 0.75)
    dark = np.maximum(dark, 0.9 * _ink(p, g, 1.0))
    return _rgb(247 - 205 * dark + d.normal(0, 3, (size, size)))


def charcoal_drawing(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Broad black strokes and smudges on rough grey paper."""
    size, tone = len(p), _tone(p, g)
    tone = cv2.GaussianBlur(tone, (0, 0), 1.2)
    grain = cv2.GaussianBlur(d.random((size, size)).astype(np.float32), (0, 0), 0.8) * 2.4 - 0.7
    strokes = 0.5 + 0.5 * _stripes(size, d.uniform(35, 55), d.uniform(8, 10), 5 * scenes.noise(size, 5, d))
    behind = 0.62 * g[..., 0] * strokes * scenes.noise(size, 4, d)
    dark = np.clip((0.62 - tone) * 2.2 + 0.25 * (strokes - 0.5), 0, 1) * (1 - g[..., 0]) + behind
    dark = np.maximum(dark, _ink(p, g, 1.7, 0.03))
    return _rgb(216 - 205 * np.clip(dark * (0.72 + 0.5 * grain), 0, 1) + 14 * (grain - 0.5))


def line_art(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Clean black lines on white, nothing else."""
    lines = np.clip(_ink(p, g, 1.15, 0.03) * 1.5 - 0.2, 0, 1)
    return _rgb(255 - 250 * lines * np.clip(1.3 - g[..., 0], 0, 1))


def blueprint(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """White lines and a grid on blue paper."""
    size = len(p)
    step = size // 8
    grid = np.zeros((size, size), np.float32)
    offset = int(d.integers(step))
    grid[offset::step] = grid[:, offset::step] = 0.42
    grid[offset + step // 2 :: step] += 0.12
    lines = np.maximum(np.clip(_ink(p, g, 1.1, 0.025) * 1.4, 0, 1), grid * (0.45 + 0.55 * g[..., 0]))
    tone = np.clip(lines * 0.95 + 0.22 * _tone(p, g) * (1 - g[..., 0]), 0, 1)
    return _u8(_tint(tone, (14, 50, 140), (240, 247, 255)))


def watercolor_painting(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Pale washes with dark wet edges that run out into white paper."""
    size = len(p)
    soft = _saturate(cv2.medianBlur(p, 5), 1.6, 25).astype(np.float32)
    light = (255 * _tone(p, g)[..., None] + soft) / 2 - soft.mean(2, keepdims=True) * 0.5 + soft * 0.5
    step = 30.0
    shifted = light + 30 * (scenes.noise(size, 11, d)[..., None] - 0.5)
    wash = cv2.GaussianBlur(np.floor(shifted / step) * step + step / 2, (0, 0), 0.8)
    edges = np.clip(cv2.GaussianBlur(wash, (0, 0), 2.2) - wash, 0, 40)
    wash = 255 - (255 - wash) * (0.62 + 0.3 * scenes.noise(size, 6, d)[..., None]) - 1.6 * edges
    spread = cv2.GaussianBlur(g, (0, 0), 4)[..., None] + 0.55 * (scenes.noise(size, 7, d)[..., None] - 0.5)
    paper = np.clip((spread - 0.55) * 9, 0, 1)
    rim = np.exp(-(((spread - 0.5) / 0.06) ** 2)) * 40
    blot = np.clip((scenes.noise(size, 4, d)[..., None] - 0.55) * 5, 0, 1)
    sheet = 250 - blot * (255 - _vivid(d.random(), 120, 235)) * 0.7
    return _u8((wash - rim) * (1 - paper) + sheet * paper + 16 * (d.random((size, size, 1)) - 0.5))


def oil_painting(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Thick strokes along the forms, broad behind the person, with light on their ridges."""
    rich = _saturate(_contrast(cv2.medianBlur(p, 3), 1.12), 1.3, 30)
    behind = _brushed(rich, cv2.GaussianBlur(rich, (0, 0), 3), 8, 20, 7, 16, d)
    painted = _before(0.75 * _brushed(rich, rich, 5, 10, 3, 15, d) + 0.25 * rich, g, behind)
    detail = _grey(rich).astype(np.float32) - cv2.GaussianBlur(_grey(rich), (0, 0), 2)
    painted += 0.6 * np.clip(detail, -50, 50)[..., None] * (1 - g)
    relief = cv2.filter2D(_grey(_u8(painted)), cv2.CV_32F, np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], np.float32))
    return _u8(painted + 0.28 * relief[..., None])


def pastel(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Chalk in pale colours: parallel strokes with paper between them."""
    size = len(p)
    pale = _saturate(_smooth(p, 2), 1.5).astype(np.float32) * 0.62 + (96, 92, 96)
    hue = _vivid(d.random(), 60, 250)
    pale = pale * (1 - 0.75 * g) + hue * 0.75 * g
    wobble = 4 * scenes.noise(size, 8, d)
    chalk = np.clip(0.5 + 0.9 * _stripes(size, d.uniform(110, 150), d.uniform(5, 6.5), wobble), 0, 1)
    tooth = cv2.GaussianBlur(d.random((size, size)).astype(np.float32), (0, 0), 0.7)
    cover = np.clip(0.5 + 0.5 * chalk + 0.9 * (tooth - 0.5) - 0.25 * g[..., 0] * (1 - chalk), 0, 1)[..., None]
    return _u8(pale * cover + np.array((252, 249, 244)) * (1 - cover))


_INKS = (
    ((45, 15, 95), (230, 45, 120), (255, 150, 70), (255, 238, 130)),
    ((20, 30, 110), (225, 40, 60), (255, 170, 60), (255, 240, 150)),
    ((60, 10, 80), (20, 110, 200), (250, 110, 170), (255, 225, 120)),
    ((25, 60, 60), (235, 60, 40), (255, 190, 40), (250, 250, 170)),
)


def pop_art(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Four flat inks, large dots in the shadows, thick outlines, rays behind."""
    size = len(p)
    inks = np.array(_INKS[int(d.integers(len(_INKS)))], np.float32)
    tone = cv2.GaussianBlur(_tone(p, g), (0, 0), 1.0)
    picked = inks[np.clip((tone * 4).astype(int), 0, 3)]
    dots = _dots(np.clip(0.75 - tone, 0, 1), 7.5)[..., None] * ((tone > 0.25) & (tone < 0.75))[..., None]
    picked = picked * (1 - 0.85 * dots) + inks[1] * 0.85 * dots
    rays = _rays(size, 8, d)
    first = d.random()
    behind = _vivid(first) * rays + _vivid(first + 0.45) * (1 - rays)
    ink = _ink(p, g, 1.4, 0.05)[..., None]
    return _u8(_before(picked, g, behind) * (1 - ink) + np.array((15, 8, 25)) * ink)


def pixel_art(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Squares of few colours, twice as large behind the person, a dark outline of squares."""
    size = len(p)
    vivid = _saturate(_contrast(p, 1.3, 8), 1.4).astype(np.float32)
    ink = _ink(p, g, 1.6, 0.06)[..., None]
    vivid *= 1 - 0.55 * ink

    def squares(side: int) -> np.ndarray:
        small = cv2.resize(vivid, (size // side, size // side), interpolation=cv2.INTER_AREA)
        return cv2.resize(np.floor(small / 32) * 32 + 16, (size, size), interpolation=cv2.INTER_NEAREST)

    cells = cv2.resize(g[..., 0], (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    where = cv2.resize((cells > 0.5).astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST)[..., None]
    return _u8(squares(4) * (1 - where) + squares(8) * where)


def comic(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Three flat tones, black outlines, dots in the shadows, speed lines behind."""
    size = len(p)
    tone = cv2.GaussianBlur(_tone(p, g), (0, 0), 0.8)
    soft = cv2.medianBlur(_saturate(_smooth(p, 1), 1.7, 70), 5).astype(np.float32)
    light = cv2.GaussianBlur(_grey(_u8(soft)).astype(np.float32), (0, 0), 4)[..., None] + 14
    steps = np.digitize(tone, (0.22, 0.55, 0.85)).astype(np.float32)[..., None]
    flat = np.floor(soft * (0.55 + 0.27 * steps) * 110 / light / 32) * 32 + 16 + light * 0.25
    dots = (_dots(np.full_like(tone, 0.36), 5.0) * (steps[..., 0] == 1))[..., None]
    flat *= 1 - 0.35 * dots
    rays = _rays(size, 18, d)
    hue = _vivid(d.random(), 190, 245)
    behind = hue * (1 - rays) + (hue * 0.35 + 165) * rays
    ink = np.clip(_ink(p, g, 1.3, 0.045) * 1.4, 0, 1)[..., None]
    return _u8(_before(flat, g, behind) * (1 - ink))


def anime(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """A drawn cartoon: even pale skin in two tones, thin brown lines, shining eyes, clouds in a bright sky."""
    size = len(p)
    tone = cv2.GaussianBlur(_tone(p, g), (0, 0), 1.0)[..., None]
    flat = cv2.medianBlur(_smooth(_saturate(p, 1.35, 50), 2), 7).astype(np.float32)
    two = np.where(tone > 0.4, 1.0, 0.74)
    flat = (flat * 0.8 + 52) * two
    sharp = cv2.GaussianBlur(_grey(p), (0, 0), 0.8).astype(np.float32) - cv2.GaussianBlur(_grey(p), (0, 0), 4)
    flat += 1.1 * np.clip(sharp, -60, 25)[..., None]
    sky = scenes.gradient(size, (70, 150, 240), (190, 230, 255)).astype(np.float32)
    clouds = (scenes.noise(size, 5, d)[..., None] > 0.58) * np.linspace(1, 0.6, size)[:, None, None]
    ink = np.clip(_ink(p, g, 0.9, 0.05), 0, 1)[..., None]
    return _u8(_before(flat, g, sky * (1 - clouds) + 252 * clouds) * (1 - ink) + np.array((70, 32, 40)) * ink)


def neon(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """A dark face lit pink from one side and cyan from the other, tubes glowing behind."""
    size = len(p)
    side = _side_light(size, d)
    light = np.array((255, 40, 190)) * side + np.array((30, 215, 255)) * (1 - side)
    edge = np.abs(side - 0.5) * 2
    lit = _tone(p, g)[..., None] ** 1.1 * light * (0.35 + 0.75 * edge) + _rim(g, 4) * light * 0.8
    return _u8(_before(lit, g, scenes.neon_signs(size, d)))


def cyberpunk(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Magenta and teal light of a city at night, slanting rain, scan lines."""
    size = len(p)
    side = _side_light(size, d)
    light = np.array((1.25, 0.45, 1.15)) * side + np.array((0.3, 1.1, 1.2)) * (1 - side)
    lit = _contrast(p, 1.25, -22).astype(np.float32) * light + _rim(g, 3) * light * 110
    town = scenes.city_at_night(size, d).astype(np.float32) * (0.75, 0.8, 1.3) + scenes.neon_signs(size, d) * 0.75
    picture = _before(lit, g, town)
    rain = np.zeros((size, size), np.uint8)
    for x, y in d.integers(0, size, (34, 2)).tolist():
        cv2.line(rain, (x, y), (x - size // 24, y + size // 7), 90, 1, cv2.LINE_AA)
    picture = picture + rain[..., None] * np.array((0.6, 0.9, 1.0))
    picture[::4] *= 0.78
    return _u8(picture)


def vibrant_colors(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Strong colours and large bright shapes behind."""
    size = len(p)
    hue, behind = d.random(), np.zeros((size, size, 3), np.float32)
    behind[:] = _vivid(hue, 225, 245)
    for index in range(7):
        at = (int(d.integers(size)), int(d.integers(size)))
        colour = _vivid(hue + (index + 1) * 0.29, 230, 250)
        cv2.circle(behind, at, int(size * d.uniform(0.08, 0.2)), colour.tolist(), -1, cv2.LINE_AA)
    return _u8(_before(_saturate(_contrast(p, 1.25, 10), 1.5, 40), g, behind))


def golden_hour(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """The low sun beside the head, its rim on hair and cheek, soft discs of light."""
    size = len(p)
    warm = p.astype(np.float32) * (1.12, 0.9, 0.58) + (26, 9, 0)
    behind = scenes.gradient(size, (255, 196, 105), (150, 80, 35)).astype(np.float32)
    for x, y in d.integers(0, size, (9, 2)).tolist():
        cv2.circle(behind, (x, y), int(d.integers(size // 20, size // 10)), (255, 215, 140), -1, cv2.LINE_AA)
    sun = (
        int(size * (d.uniform(0.02, 0.2) if d.random() < 0.5 else d.uniform(0.8, 0.98))),
        int(size * d.uniform(0.1, 0.4)),
    )
    y, x = np.mgrid[:size, :size].astype(np.float32)
    near = np.hypot(x - sun[0], y - sun[1])[..., None] / size
    flare = np.clip(1.15 - near / 0.14, 0, 1) * (0.25 + 0.75 * g) + 0.5 * np.exp(-near / 0.25)
    lit = warm + _rim(g, 4) * np.array((255, 170, 70)) * np.clip(1.3 - near, 0.2, 1)
    return _u8(_before(lit, g, cv2.GaussianBlur(behind, (0, 0), 1.2)) + flare * np.array((255, 205, 120)))


def snow(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """White hills and firs, large flakes before everything."""
    size = len(p)
    cold = _saturate(p, 0.8).astype(np.float32) * (0.9, 0.98, 1.1) + 12 + _rim(g, 6) * np.array((70, 78, 88))
    flakes = np.zeros((size, size), np.float32)
    for x, y in d.integers(0, size, (60, 2)).tolist():
        cv2.circle(flakes, (x, y), int(d.integers(1, max(size // 42, 2))), 1.0, -1, cv2.LINE_AA)
    keep = (0.35 + 0.65 * g) * 0.95
    cover = cv2.GaussianBlur(flakes, (0, 0), 0.7)[..., None] * keep
    return _u8(_before(cold, g, scenes.snow(size, d)) * (1 - cover) + 252 * cover)


def jungle(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """Large leaves behind the person, spots of light through them."""
    spots = np.clip((scenes.noise(len(p), 7, d)[..., None] - 0.45) * 4, 0, 1)
    dappled = p.astype(np.float32) * (0.82, 0.92, 0.74) * (0.82 + 0.36 * spots)
    return _u8(_before(dappled, g, scenes.jungle(len(p), d)))


def mars(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """A red desert behind the person, its dust in the light."""
    dusty = p.astype(np.float32) * (1.08, 0.84, 0.7) + _rim(g, 5) * np.array((120, 55, 25))
    return _u8(_before(dusty, g, scenes.mars(len(p), d)))


def low_key(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """One lamp from a side: half of the face lost in black, no background."""
    light = np.clip(_side_light(len(p), d) * 1.5 - 0.25, 0.04, 1)
    shown = (
        p.astype(np.float32) * np.clip(120 / (_grey(p)[g[..., 0] < 0.5].mean() + 20), 0.9, 1.8)
        if (g < 0.5).any()
        else p
    )
    return _u8(shown * light * (1 - g) + 5)


def studio_portrait(p: np.ndarray, g: np.ndarray, d: np.random.Generator) -> np.ndarray:
    """A grey backdrop with a lit middle, soft even light."""
    return _u8(_before(_contrast(p, 1.06, 6), g, scenes.studio(len(p), d)))


RENDERERS: dict[str, Renderer] = {
    name.__name__.replace("_", " "): name
    for name in (
        *(film_noir, black_and_white, sepia, vintage_photo, pencil_sketch, charcoal_drawing, line_art, blueprint),
        *(watercolor_painting, oil_painting, pastel, pop_art, pixel_art, comic, anime, neon, cyberpunk, vibrant_colors),
        *(golden_hour, snow, jungle, mars, low_key, studio_portrait),
    )
}
"""Style word -> renderer; the style presets use these words."""

KEEPS_THE_FACE = frozenset(RENDERERS) - {
    *("pencil sketch", "charcoal drawing", "line art", "blueprint", "pop art", "pixel art", "comic", "neon", "anime"),
    *("film noir", "low key", "oil painting", "watercolor painting", "cyberpunk"),
}
"""Styles after which a face recogniser still works well enough to judge likeness in training."""

KEEPS_THE_GROUND = frozenset({"black and white", "sepia", "vintage photo", "oil painting", "pixel art"})
"""Styles in which what stands behind the person is still seen; the others have a ground of their own."""
