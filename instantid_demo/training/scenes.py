"""Places drawn by hand that stand behind a person in training: beach, city, jungle and others.

Every scene takes `(size, draw)` and returns a picture `(size, size, 3)` uint8 RGB. Shapes are about a sixteenth of the
picture and larger, so that latents of 16×16 can hold them, and no two draws are alike.
"""

from collections.abc import Callable

import cv2
import numpy as np

Scene = Callable[[int, np.random.Generator], np.ndarray]
Colour = tuple[float, float, float]


def gradient(size: int, top: Colour, bottom: Colour) -> np.ndarray:
    """A picture that runs from one colour down to another, uint8."""
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    column = np.array(top, np.float32) * (1 - y) + np.array(bottom, np.float32) * y
    return np.repeat(np.clip(column, 0, 255).astype(np.uint8), size, 1)


def noise(size: int, cells: int, draw: np.random.Generator) -> np.ndarray:
    """Smooth noise `(size, size)` in 0..1, about `cells` blobs across."""
    coarse = draw.random((cells + 1, cells + 1)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def _jitter(colour: Colour, draw: np.random.Generator, by: float = 14) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + draw.uniform(-by, by) + draw.uniform(-by, by, 3) * 0.4, 0, 255)
    return int(red), int(green), int(blue)


def _ridge(size: int, height: float, rough: float, draw: np.random.Generator) -> np.ndarray:
    """Outline of hills as a polygon down to the lower border."""
    x = np.linspace(0, size, 13)
    y = size * (height + rough * draw.uniform(-1, 1, 13))
    return np.array([*zip(x, y, strict=True), (size, size), (0, size)], np.int32)


def _soft(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def _glow(picture: np.ndarray, light: np.ndarray, sigma: float, gain: float) -> np.ndarray:
    """`light` (black where there is none) shines on the picture, with a halo."""
    halo = cv2.GaussianBlur(light, (0, 0), sigma).astype(np.float32) * gain
    return np.clip(picture.astype(np.float32) + light + halo, 0, 255).astype(np.uint8)


def beach(size: int, draw: np.random.Generator) -> np.ndarray:
    """Blue sky, a band of sea with foam, pale sand, sometimes a palm."""
    picture = gradient(size, _jitter((95, 165, 235), draw), (205, 230, 250))
    sea, sand = (int(size * draw.uniform(*share)) for share in ((0.34, 0.48), (0.6, 0.72)))
    picture[sea:sand] = _band(size, sand - sea, _jitter((20, 105, 165), draw), (95, 205, 205))
    picture[sand:] = _band(size, size - sand, (245, 225, 180), _jitter((220, 185, 125), draw))
    cv2.ellipse(picture, (int(size * draw.random()), sand), (size, size // 28), 0, 0, 360, (250, 252, 250), -1)
    if draw.random() < 0.6:
        side = int(draw.integers(2)) * size
        lean = size // 8 * (1 if side == 0 else -1)
        crown = (side + lean + int(size * draw.uniform(-0.05, 0.05)), int(size * draw.uniform(0.12, 0.22)))
        cv2.line(picture, (side + lean // 3, int(size * 0.8)), crown, (110, 80, 50), size // 22)
        for angle in draw.uniform(0, 360, 8):
            tip = (np.array(crown) + size * 0.26 * np.array((np.cos(angle), 0.55 * np.sin(angle) + 0.15))).astype(int)
            cv2.line(picture, crown, tuple(int(v) for v in tip), _jitter((35, 115, 45), draw), size // 20)
    return picture


def _band(size: int, height: int, top: Colour, bottom: Colour) -> np.ndarray:
    return cv2.resize(gradient(16, top, bottom), (size, height), interpolation=cv2.INTER_LINEAR)


def city(size: int, draw: np.random.Generator) -> np.ndarray:
    """A row of tall houses with windows by day."""
    return _houses(
        size, draw, ((150, 185, 220), (215, 222, 228)), ((120, 125, 135), (165, 140, 120), (95, 105, 125)), 0.0
    )


def city_at_night(size: int, draw: np.random.Generator) -> np.ndarray:
    """Dark houses with lit windows."""
    return _houses(size, draw, ((12, 14, 38), (50, 38, 75)), ((22, 24, 44), (34, 30, 54), (16, 20, 36)), 0.5)


def _houses(
    size: int, draw: np.random.Generator, sky: tuple[Colour, Colour], walls: tuple[Colour, ...], lit: float
) -> np.ndarray:
    picture = gradient(size, *sky)
    left, step = -int(draw.integers(size // 10)), size // 14
    while left < size:
        width = int(size * draw.uniform(0.14, 0.26))
        roof = int(size * draw.uniform(0.04, 0.42))
        wall = np.array(_jitter(walls[int(draw.integers(len(walls)))], draw))
        cv2.rectangle(picture, (left, roof), (left + width - 2, size), wall.tolist(), -1)
        for y in range(roof + step // 2, size, step):
            for x in range(left + step // 2, left + width - step // 2, step):
                if lit:
                    pane = (255, 214, 120) if draw.random() < lit else (wall * 0.7).tolist()
                else:
                    pane = (wall * 0.55).tolist() if draw.random() < 0.75 else (205, 220, 235)
                cv2.rectangle(picture, (x, y), (x + step // 2 - 1, y + step // 2), pane, -1)
        left += width
    return picture


def garden(size: int, draw: np.random.Generator) -> np.ndarray:
    """A green hedge with many flowers."""
    leaves = noise(size, 14, draw)[..., None]
    picture = (np.array((45, 100, 35)) + leaves * np.array((75, 105, 45))).astype(np.uint8)
    kinds = ((235, 60, 90), (250, 210, 60), (245, 245, 245), (190, 90, 210), (255, 140, 170))
    for x, y in draw.integers(0, size, (26, 2)):
        colour = _jitter(kinds[int(draw.integers(len(kinds)))], draw)
        radius = int(draw.integers(size // 36, size // 20))
        for petal in range(5):
            at = 1.2566 * petal
            centre = (int(x + radius * np.cos(at)), int(y + radius * np.sin(at)))
            cv2.circle(picture, centre, max(radius * 3 // 4, 1), colour, -1, cv2.LINE_AA)
        cv2.circle(picture, (int(x), int(y)), max(radius // 2, 1), (250, 190, 40), -1, cv2.LINE_AA)
    return picture


def forest(size: int, draw: np.random.Generator) -> np.ndarray:
    """Tree trunks before dim green."""
    picture = _soft(gradient(size, _jitter((150, 190, 130), draw), (50, 80, 40)), 1)
    picture = np.clip(picture * (0.6 + 0.6 * noise(size, 9, draw)[..., None]), 0, 255).astype(np.uint8)
    for x in np.linspace(0, size, 8) + draw.uniform(-size / 16, size / 16, 8):
        width = int(draw.integers(size // 26, size // 11))
        bark = _jitter((75, 55, 40), draw, 20)
        lean = int(draw.uniform(-4, 4))
        cv2.line(picture, (int(x), -4), (int(x) + lean, size), bark, width)
        cv2.line(
            picture, (int(x) - width // 3, -4), (int(x) + lean - width // 3, size), (45, 34, 26), max(width // 4, 1)
        )
    picture[int(size * 0.86) :] = (picture[int(size * 0.86) :] * (0.7, 0.9, 0.6)).astype(np.uint8)
    return picture


def jungle(size: int, draw: np.random.Generator) -> np.ndarray:
    """Large leaves over one another, each with its rib."""
    picture = gradient(size, (20, 60, 20), (8, 35, 12))
    for layer, count in ((0.55, 26), (0.8, 22), (1.1, 16)):
        for x, y in draw.integers(-size // 10, size + size // 10, (count, 2)):
            colour = np.clip(np.array(_jitter((50, 135, 45), draw, 22)) * layer, 0, 255)
            long, wide = size * draw.uniform(0.13, 0.24), size * draw.uniform(0.035, 0.07)
            angle = draw.uniform(0, 180)
            centre = (int(x), int(y))
            cv2.ellipse(picture, centre, (int(long), int(wide)), angle, 0, 360, colour.tolist(), -1, cv2.LINE_AA)
            along = long * 0.9 * np.array((np.cos(np.radians(angle)), np.sin(np.radians(angle))))
            ends = ((np.array((x, y)) - along).astype(int).tolist(), (np.array((x, y)) + along).astype(int).tolist())
            cv2.line(picture, ends[0], ends[1], (colour * 1.5).clip(0, 255).tolist(), max(size // 100, 1), cv2.LINE_AA)
    return picture


def snow(size: int, draw: np.random.Generator) -> np.ndarray:
    """White hills with dark firs under a pale sky."""
    picture = gradient(size, _jitter((196, 213, 233), draw), (230, 238, 246))
    cv2.fillPoly(picture, [_ridge(size, draw.uniform(0.45, 0.55), 0.05, draw)], (214, 224, 236))
    for x in draw.uniform(0, size, 7):
        foot, tall = size * draw.uniform(0.55, 0.75), size * draw.uniform(0.22, 0.4)
        for part in (1.0, 0.72, 0.45):
            top = foot - tall * (1.15 - part * 0.75)
            half = tall * 0.3 * part
            fir = np.array(
                [(x, top - tall * 0.28), (x - half, top + tall * 0.1), (x + half, top + tall * 0.1)], np.int32
            )
            cv2.fillPoly(picture, [fir], _jitter((38, 72, 62), draw, 8), cv2.LINE_AA)
            cv2.fillPoly(picture, [(fir * 1.0 - (0, tall * 0.05)).astype(np.int32)[:2].repeat(2, 0)], (235, 240, 248))
    cv2.fillPoly(picture, [_ridge(size, draw.uniform(0.7, 0.8), 0.03, draw)], (243, 246, 251))
    return picture


def mountains(size: int, draw: np.random.Generator) -> np.ndarray:
    """Peaks with snow on them, one range behind the other."""
    picture = gradient(size, _jitter((85, 145, 215), draw), (205, 222, 238))
    for height, colour in ((0.34, (140, 155, 180)), (0.52, (85, 100, 120))):
        for x in draw.uniform(0, size, 4):
            peak, half = size * (height + draw.uniform(-0.14, 0.04)), size * draw.uniform(0.3, 0.5)
            sides = np.array([(x, peak), (x - half, size), (x + half, size)], np.int32)
            cv2.fillPoly(picture, [sides], _jitter(colour, draw), cv2.LINE_AA)
            cap = 0.3 * (size - peak)
            snowy = [(x, peak), (x - half * 0.3, peak + cap), (x, peak + cap * 0.7), (x + half * 0.3, peak + cap)]
            cv2.fillPoly(picture, [np.array(snowy, np.int32)], (240, 244, 250), cv2.LINE_AA)
    cv2.fillPoly(picture, [_ridge(size, 0.82, 0.03, draw)], _jitter((60, 100, 55), draw))
    return picture


def desert(size: int, draw: np.random.Generator) -> np.ndarray:
    """Yellow dunes under a blue sky."""
    picture = gradient(size, _jitter((100, 165, 225), draw), (225, 225, 205))
    for height, colour in ((0.42, (225, 180, 110)), (0.58, (235, 195, 125)), (0.75, (215, 165, 90))):
        cv2.fillPoly(picture, [_ridge(size, height, 0.05, draw)], _jitter(colour, draw), cv2.LINE_AA)
    return picture


def mars(size: int, draw: np.random.Generator) -> np.ndarray:
    """A red desert with rocks under a hazy orange sky."""
    picture = gradient(size, _jitter((205, 120, 75), draw), (245, 180, 125))
    for height, rough, colour in ((0.42, 0.09, (165, 75, 45)), (0.6, 0.04, (185, 80, 45)), (0.76, 0.03, (150, 55, 28))):
        cv2.fillPoly(picture, [_ridge(size, height, rough, draw)], _jitter(colour, draw, 8), cv2.LINE_AA)
    for x, y in zip(draw.uniform(0, size, 16), size * draw.uniform(0.55, 1, 16), strict=True):
        radius = max(int(size * 0.035 * y / size * draw.uniform(0.7, 2)), 2)
        cv2.ellipse(picture, (int(x), int(y)), (radius, radius * 2 // 3), 0, 0, 360, (85, 30, 18), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (int(x) - 1, int(y) - 1), (radius * 2 // 3, radius // 3), 0, 0, 360, (200, 105, 65), -1)
    return picture


def space(size: int, draw: np.random.Generator) -> np.ndarray:
    """Stars, a coloured nebula and a planet."""
    cloud = noise(size, 5, draw)[..., None] * noise(size, 9, draw)[..., None]
    tint = ((150, 50, 190), (40, 90, 200), (190, 60, 90))[int(draw.integers(3))]
    picture = np.clip(np.array((5, 5, 18)) + cloud * np.array(tint), 0, 255).astype(np.uint8)
    for x, y in draw.integers(0, size, (70, 2)):
        cv2.circle(picture, (int(x), int(y)), int(draw.random() < 0.25), (245, 245, 255), -1)
    centre = (int(size * (0.12 if draw.random() < 0.5 else 0.88)), int(size * draw.uniform(0.1, 0.45)))
    radius = int(size * draw.uniform(0.1, 0.2))
    planet = np.array(_jitter(((215, 150, 90), (90, 140, 200), (190, 90, 70))[int(draw.integers(3))], draw))
    cv2.circle(picture, centre, radius, planet.tolist(), -1, cv2.LINE_AA)
    shade = (centre[0] + radius // 3, centre[1] + radius // 3)
    cv2.circle(picture, shade, radius * 3 // 4, (planet * 0.6).tolist(), -1, cv2.LINE_AA)
    if draw.random() < 0.5:
        ring = (radius * 17 // 10, radius // 3)
        cv2.ellipse(picture, centre, ring, -20, 0, 360, (220, 205, 170), max(size // 60, 1), cv2.LINE_AA)
    return picture


def office(size: int, draw: np.random.Generator) -> np.ndarray:
    """A pale wall, a window with blinds, a shelf with folders."""
    picture = gradient(size, _jitter((222, 222, 215), draw), (190, 190, 185))
    flip = draw.random() < 0.5
    right, low = int(size * draw.uniform(0.42, 0.56)), int(size * draw.uniform(0.5, 0.75))
    cv2.rectangle(picture, (0, size // 20), (right, low), (225, 238, 250), -1)
    for y in range(size // 20, low, size // 18):
        cv2.line(picture, (0, y), (right, y), (165, 175, 185), max(size // 50, 1))
    cv2.rectangle(picture, (0, size // 20), (right, low), (110, 112, 118), max(size // 40, 1))
    left, folders = int(size * draw.uniform(0.6, 0.68)), ((50, 90, 160), (170, 60, 50), (70, 130, 90), (60, 60, 65))
    for top in (int(size * 0.06), int(size * 0.36), int(size * 0.66)):
        bottom, x = top + size // 4, left
        while x < size:
            width = int(draw.integers(size // 26, size // 14))
            cv2.rectangle(
                picture,
                (x, top + size // 30),
                (x + width - 2, bottom),
                _jitter(folders[int(draw.integers(4))], draw),
                -1,
            )
            x += width
        cv2.rectangle(picture, (left, bottom), (size, bottom + size // 40), (125, 95, 70), -1)
    return np.ascontiguousarray(picture[:, ::-1]) if flip else picture


def library(size: int, draw: np.random.Generator) -> np.ndarray:
    """Shelves full of books."""
    picture = np.full((size, size, 3), (60, 38, 24), np.uint8)
    spines = ((120, 40, 35), (40, 70, 60), (50, 60, 105), (165, 130, 70), (95, 65, 45), (200, 185, 150))
    rows = int(draw.integers(4, 6))
    for row in range(rows):
        bottom, x = (row + 1) * size // rows - size // 40, 0
        while x < size:
            width, tall = int(draw.integers(size // 32, size // 13)), int(size / rows * draw.uniform(0.68, 0.88))
            colour = _jitter(spines[int(draw.integers(len(spines)))], draw)
            cv2.rectangle(picture, (x, bottom - tall), (x + width - 2, bottom), colour, -1)
            x += width
        cv2.rectangle(picture, (0, bottom), (size, bottom + size // 40), (125, 85, 50), -1)
    return picture


def studio(size: int, draw: np.random.Generator) -> np.ndarray:
    """A plain grey backdrop, lit from behind the head."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    far = np.hypot(x - draw.uniform(0.3, 0.7), y - draw.uniform(0.25, 0.55))[..., None]
    light = draw.uniform(150, 225)
    tint = np.array((1.0, 1.0, 1.0)) + draw.uniform(-0.015, 0.015, 3)
    return np.clip(light * (1.08 - 0.75 * far) * tint, 0, 255).astype(np.uint8)


def plain_wall(size: int, draw: np.random.Generator) -> np.ndarray:
    """One even colour, mostly light, as in passport photos."""
    colours = ((240, 240, 240), (225, 228, 232), (180, 200, 225), (128, 128, 128), (60, 110, 200), (70, 130, 60))
    rare = ((180, 40, 40), (225, 195, 70), (230, 150, 180), (110, 75, 45), (20, 20, 20), (230, 130, 40), (120, 50, 150))
    chosen = colours if draw.random() < 0.65 else rare
    colour = _jitter(chosen[int(draw.integers(len(chosen)))], draw, 10)
    return gradient(size, colour, tuple(np.array(colour) * draw.uniform(0.88, 1)))


def sunset(size: int, draw: np.random.Generator) -> np.ndarray:
    """A low sun in bands of orange and violet over dark hills."""
    horizon = int(size * draw.uniform(0.62, 0.8))
    picture = gradient(size, _jitter((75, 55, 120), draw), (75, 55, 120))
    picture[: horizon // 2] = _band(size, horizon // 2, _jitter((85, 60, 130), draw), (225, 100, 90))
    picture[horizon // 2 :] = _band(size, size - horizon // 2, (225, 100, 90), (255, 205, 110))
    sun = (
        int(size * (draw.uniform(0.05, 0.25) if draw.random() < 0.5 else draw.uniform(0.75, 0.95))),
        horizon - size // 8,
    )
    light = np.zeros_like(picture)
    cv2.circle(light, sun, size // 10, (255, 235, 170), -1, cv2.LINE_AA)
    picture = _glow(picture, light, size / 12, 0.9)
    cv2.fillPoly(picture, [_ridge(size, horizon / size, 0.03, draw)], (38, 24, 40), cv2.LINE_AA)
    return picture


def brick_wall(size: int, draw: np.random.Generator) -> np.ndarray:
    """Red bricks with pale joints."""
    picture = np.full((size, size, 3), _jitter((190, 180, 168), draw), np.uint8)
    tall, wide = size // 12, size // 5
    for row, y in enumerate(range(0, size, tall)):
        for x in range(-wide + (row % 2) * wide // 2, size, wide):
            cv2.rectangle(picture, (x + 1, y + 1), (x + wide - 2, y + tall - 2), _jitter((155, 75, 55), draw, 18), -1)
    return picture


def neon_signs(size: int, draw: np.random.Generator) -> np.ndarray:
    """Glowing tubes in pink and cyan on a dark wall."""
    light = np.zeros((size, size, 3), np.uint8)
    tubes, thick = ((255, 40, 190), (40, 225, 255), (165, 70, 255)), max(size // 40, 1)
    for index in range(6):
        colour = tubes[index % 3]
        side = size * (draw.uniform(0, 0.25) if index % 2 else draw.uniform(0.75, 1))
        x, y = int(side), int(size * draw.uniform(0, 1))
        match int(draw.integers(3)):
            case 0:
                cv2.circle(light, (x, y), int(size * draw.uniform(0.08, 0.18)), colour, thick, cv2.LINE_AA)
            case 1:
                cv2.line(light, (x, 0), (x, size), colour, thick, cv2.LINE_AA)
            case _:
                step = size // 9
                zigzag = [(x + (step if k % 2 else -step) // 2, y + k * step) for k in range(5)]
                cv2.polylines(light, [np.array(zigzag, np.int32)], False, colour, thick, cv2.LINE_AA)
    return _glow(gradient(size, (20, 10, 34), (10, 6, 20)), light, size / 22, 1.1)


SCENES: dict[str, Scene] = {
    scene.__name__.replace("_", " "): scene
    for scene in (
        *(beach, city, city_at_night, garden, forest, jungle, snow, mountains, desert, mars, space, office, library),
        *(studio, plain_wall, sunset, brick_wall, neon_signs),
    )
}
"""Word -> scene, as captions name it."""
