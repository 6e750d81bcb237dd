"""People before a camera: who stands where, what hides whom, and the annotations that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.errors import DataError
from mdpose_edge.synth.backdrop import draw_backdrop
from mdpose_edge.synth.body import Figure, sample_build, stand
from mdpose_edge.synth.finish import cast_shadows, finish, sample_lens
from mdpose_edge.synth.instances import MIN_AREA, Thing, annotate_things, of_people, outline, visible
from mdpose_edge.synth.poses import sample_pose
from mdpose_edge.synth.props import add_prop, add_seat
from mdpose_edge.synth.raster import Raster, rasterize
from mdpose_edge.synth.shade import Light, shade
from mdpose_edge.synth.solids import Array, Camera, Solids, pick, rot_x, rot_z, sign
from mdpose_edge.synth.wardrobe import dress, sample_look

MIN_SIDE = 64
"""Shortest side of an image, px: below it a person has no limbs to see."""
MAX_SIDE = 8192
MAX_PEOPLE = 30
OVERLAP_IOU = 0.5
"""OCHuman's criterion: the box of a person overlaps that of another by more than this (Zhang et al., CVPR 2019)."""
ATTEMPTS = 60
"""Draws of a scene before giving up; at full occlusion about one in two is good."""
FLESH = 0.08
"""How far a body reaches beyond its outermost keypoints, m."""
CLOSE_ENOUGH = 0.04
"""A place with so little overlap and so little cut off is taken at once."""
PLAIN_FAMILIES, PLAIN_WEIGHTS = ("stand", "walk"), (0.65, 0.35)
"""What people do where `variety` does not reach."""
FINE_HEAD_PX = 9.0
"""Ears, nose and jaw are modelled on heads at least so tall."""

DEPTH_TOLERANCE = np.array(
    (0.025, 0.03, 0.03, 0.035, 0.035, 0.1, 0.1, 0.07, 0.07, 0.06, 0.06, 0.15, 0.15, 0.1, 0.1, 0.075, 0.075)
)
"""A keypoint is visible if no surface lies more than this in front of it: the thickness of flesh and cloth around the
joint, m on a person of 1.7 m, in COCO order."""


Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


@dataclass(frozen=True)
class Scene:
    """One picture and what is in it."""

    frame: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    annotations: list[dict[str, Any]]
    """COCO keypoint annotations without ids, plus `keypoints_3d` (17 x [x, y, z], m, camera coordinates)."""
    camera: dict[str, Any]
    """`focal`, `principal_point` (px), `rotation` (3 x 3, rows), `translation` (m): world to camera."""
    instances: list[dict[str, Any]] = field(default_factory=list)
    """COCO annotations of boxes without ids, of people and things: see instances.py."""


@dataclass(frozen=True)
class Person:
    """A figure and where it stands."""

    figure: Figure
    shift: Array
    """(3,) m."""
    keypoints: Array
    """(17, 3) world m."""


def render_scene(
    rng_or_seed: np.random.Generator | int,
    size_wh: tuple[int, int],
    people: tuple[int, int],
    occlusion: float,
    variety: float = 1.0,
) -> Scene:
    """Draw one picture; the same seed gives the same picture.

    Args:
        rng_or_seed: where the randomness comes from.
        size_wh: width and height, px.
        people: fewest and most persons, 0 for a place where nobody is; at full occlusion at least two, if any.
        occlusion: 0 keeps people apart; at 1 each person's box overlaps another's by an IoU above one half.
        variety: share of people in any pose, seen from any side; the others stand or walk, turned to the camera.

    Raises:
        DataError: an argument out of range.
    """
    check_arguments(size_wh, people, occlusion, variety)
    rng = rng_or_seed if isinstance(rng_or_seed, np.random.Generator) else np.random.default_rng(rng_or_seed)
    low, high = (max(2, people[0]), max(2, people[1])) if occlusion == 1 and people[1] else people
    for attempt in range(ATTEMPTS):
        count = int(rng.integers(low, high + 1))
        # Where nobody is to be seen, somebody decides how far away things are, and is left out.
        camera, persons = _arrange(rng, size_wh, max(1, count), (occlusion, variety), patience=attempt / ATTEMPTS)
        depths = [float(person.shift[2]) for person in persons]
        persons = persons[:count]
        solids, things = _furnish(rng, camera, persons, occlusion, float(np.mean(depths)))
        raster = rasterize(solids, camera)
        owner = raster.owner()
        boxes, areas = visible(owner, len(persons))
        if (areas >= MIN_AREA).all() and (occlusion < 1 or _all_overlap(boxes)):
            annotations = annotate(camera, dict(enumerate(persons)), raster, owner, boxes, areas)
            return Scene(
                _paint(rng, camera, persons, raster, reach=max(depths)),
                annotations,
                camera_record(camera),
                of_people(annotations) + annotate_things(things, raster),
            )
    raise DataError(
        "synth", expected=f"{low} to {high} people to be seen at occlusion {occlusion:g}",
        got=f"none such in {ATTEMPTS} scenes drawn", do="ask for fewer people or larger images",
    )  # fmt: skip


def check_arguments(size_wh: tuple[int, int], people: tuple[int, int], occlusion: float, variety: float) -> None:
    """Refuse what cannot be drawn.

    Raises:
        DataError: in the words of the flag at fault.
    """
    if not all(isinstance(side, int) and MIN_SIDE <= side <= MAX_SIDE for side in size_wh):
        expected = f"sides of {MIN_SIDE} to {MAX_SIDE} px"
        raise DataError("--size", expected=expected, got=f"{size_wh[0]}x{size_wh[1]}", do="change the size")
    if not 0 <= people[0] <= people[1] <= MAX_PEOPLE:
        expected = f"a range within 0-{MAX_PEOPLE}"
        raise DataError("--people", expected=expected, got=f"{people[0]}-{people[1]}", do="change the range")
    for flag, value in (("--occlusion", occlusion), ("--variety", variety)):
        if not 0.0 <= value <= 1.0:
            raise DataError(flag, expected="a number in [0, 1]", got=f"{value:g}", do="change it")


def _paint(
    rng: np.random.Generator, camera: Camera, persons: list[Person], raster: Raster, *, reach: float
) -> NDArray[np.uint8]:
    light = sample_light(rng)
    canvas = draw_backdrop(rng, camera, reach=reach)
    cast_shadows(canvas, camera, light, [person.keypoints for person in persons])
    shade(canvas, raster, camera, light)
    return finish(rng, canvas, sample_lens(rng, camera.size_wh))


def _arrange(
    rng: np.random.Generator, size_wh: tuple[int, int], count: int, knobs: tuple[float, float], patience: float
) -> tuple[Camera, list[Person]]:
    """Choose a camera and put people before it, some of them close together; `knobs` are occlusion and variety."""
    occlusion, variety = knobs
    share = _anchor_share(rng, count)
    focal = rng.uniform(0.9, 1.9) * max(size_wh)
    distance = focal * 1.7 / (share * size_wh[1])
    camera = sample_camera(rng, size_wh, focal, distance)
    persons: list[Person] = []
    lonely: Person | None = None
    while len(persons) < count:
        must_pair = occlusion == 1 and lonely is None and len(persons) == count - 1
        joins = bool(persons) and (lonely is not None or must_pair or (occlusion < 1 and rng.random() < occlusion))
        if joins:
            partner = lonely or persons[int(rng.integers(len(persons)))]
            persons.append(_beside(rng, camera, partner, variety, patience))
            lonely = None
        else:
            persons.append(_apart(rng, camera, persons, distance, variety))
            lonely = persons[-1] if occlusion == 1 else None
    return camera, persons


def _anchor_share(rng: np.random.Generator, count: int) -> float:
    """Draw the height of a person at the middle distance as a share of the image."""
    if count <= 3 and rng.random() < 0.12:
        return float(rng.uniform(1.0, 1.7))
    most = {1: 0.95, 2: 0.9, 3: 0.8, 4: 0.72}.get(count, 0.64)
    return float(rng.uniform(0.42 * most, most))


def sample_camera(rng: np.random.Generator, size_wh: tuple[int, int], focal: float, distance: float) -> Camera:
    """Aim a hand-held camera, or one on a wall, at somebody `distance` m away."""
    eye = rng.uniform(0.5, 1.9) if rng.random() < 0.75 else rng.uniform(1.9, 2.0 + 0.25 * distance)
    aim = rng.uniform(0.65, 1.05) if distance > 0.95 * focal * 1.7 / size_wh[1] else rng.uniform(0.9, 1.5)
    pitch = math.degrees(math.atan2(eye - aim, distance))
    flip = np.diag((-1.0, -1.0, 1.0))  # world y up and x left become camera y down and x right
    rotation = rot_z(float(rng.normal(0, 2.5))) @ rot_x(pitch) @ flip
    return Camera(rotation, rotation @ np.array((0.0, -eye, 0.0)), focal, size_wh)


def _sample_person(rng: np.random.Generator, variety: float, family: str | None = None) -> Figure:
    plain = variety < 1 and rng.random() >= variety
    if plain and family is None:
        family = PLAIN_FAMILIES[pick(rng, PLAIN_WEIGHTS)]
    towards = plain or rng.random() < 0.45
    yaw = float(180 + rng.normal(0, 35)) if towards else float(rng.uniform(0, 360))
    return stand(sample_build(rng), sample_pose(rng, family), yaw)


def _apart(rng: np.random.Generator, camera: Camera, others: list[Person], distance: float, variety: float) -> Person:
    """Put somebody where they overlap others little and the frame holds most of them."""
    figure = _sample_person(rng, variety)
    points = figure.keypoints()
    taken = [_box(camera, person.keypoints) for person in others]
    spread = camera.size_wh[0] / camera.focal_px
    best: tuple[float, Person] | None = None
    for attempt in range(24):
        z = distance * (math.exp(rng.uniform(-0.25, 0.6)) if others else rng.uniform(0.92, 1.08))
        if z - 0.9 < 0.3:
            z = 1.2
        x = spread * z * rng.uniform(-0.5, 0.5) * (0.92 if others else 0.6)
        shift = np.array((x, 0.0, z))
        box = _box(camera, points + shift)
        cost = _outside(box, camera.size_wh) + max((_cover(box, other) for other in taken), default=0.0)
        if best is None or cost < best[0]:
            best = cost, Person(figure, shift, points + shift)
        if best[0] < CLOSE_ENOUGH or (len(others) == 0 and attempt > 6):
            break
    assert best is not None
    return best[1]


def _beside(rng: np.random.Generator, camera: Camera, partner: Person, variety: float, patience: float) -> Person:
    """Put somebody before or behind a partner, so that their boxes overlap by clearly more than half."""
    goal = _box(camera, partner.keypoints)
    best: tuple[float, Person] | None = None
    for _ in range(10):
        figure = _sample_person(rng, variety, partner.figure.pose.family)
        points = figure.keypoints()
        for _ in range(4):
            reach = 0.34 * partner.figure.build.height * (0.35 + 0.65 * rng.random())
            side = sign(rng) * reach * rng.uniform(0.25, 0.8) * (1.0 - 0.3 * patience)
            away = sign(rng) * rng.uniform(0.28, 0.5)
            if partner.shift[2] + away < 1.0:
                away = abs(away)
            scale = (partner.shift[2] + away) / partner.shift[2]
            shift = np.array((partner.shift[0] * scale + side, 0.0, partner.shift[2] + away))
            overlap = _iou(_box(camera, points + shift), goal)
            cost = abs(overlap - 0.72)
            if best is None or cost < best[0]:
                best = cost, Person(figure, shift, points + shift)
        if best is not None and best[0] < 0.06:
            break
    assert best is not None
    return best[1]


def _furnish(
    rng: np.random.Generator, camera: Camera, persons: list[Person], occlusion: float, depth: float
) -> tuple[Solids, list[Thing]]:
    """Dress everybody and put things around and in front of them, about `depth` m away."""
    solids = Solids()
    things: list[Thing] = []
    for owner, person in enumerate(persons):
        height_px = camera.focal_px * person.figure.build.height / max(person.shift[2], 0.5)
        dress(person.figure, sample_look(rng), solids, owner, person.shift, fine=0.13 * height_px > FINE_HEAD_PX)
        if person.figure.pose.family == "sit":
            first = len(solids)
            add_seat(rng, solids, person.figure, person.shift)
            things.append(Thing("seat", range(first, len(solids))))

    def add(place: Array) -> None:
        first = len(solids)
        things.append(Thing(add_prop(rng, solids, place), range(first, len(solids))))

    spread = camera.size_wh[0] / camera.focal_px
    for _ in range(int(rng.integers(0, 4))):
        z = depth * rng.uniform(0.95, 1.5)
        add(np.array((spread * z * rng.uniform(-0.55, 0.55), 0.0, z)))
    for person in persons:
        if rng.random() < 0.08 + 0.22 * min(occlusion, 0.6):
            z = person.shift[2] * rng.uniform(0.6, 0.85)
            x = person.shift[0] * z / person.shift[2] + sign(rng) * rng.uniform(0.1, 0.5)
            add(np.array((x, 0.0, z)))
    return solids, things


def sample_light(rng: np.random.Generator) -> Light:
    """Draw where the lamp stands, and how strong and warm it is."""
    azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.3)
    direction = np.array(
        (math.cos(azimuth) * math.cos(height), math.sin(height), math.sin(azimuth) * math.cos(height))
    )  # fmt: skip
    strength = rng.uniform(0.45, 0.95)
    warmth = 1 + rng.normal(0, 0.05) * np.array((-1.0, 0.0, 1.0))
    lamp = (strength * warmth).astype(np.float32)
    return Light(direction, lamp, ((1.12 - 0.75 * strength) * (2 - warmth)).astype(np.float32))


def annotate(
    camera: Camera, persons: dict[int, Person], raster: Raster, owner: NDArray[np.int32], boxes: Array,
    areas: NDArray[np.int64],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the COCO annotations, without ids, of persons by their number; `boxes` and `areas` as from `visible`."""
    records = []
    for index, person in persons.items():
        keypoints, count = _coco_keypoints(camera, person, raster)
        x0, y0, x1, y1 = boxes[index].tolist()
        records.append({
            "category_id": 1, "iscrowd": 0, "area": float(areas[index]), "bbox": [x0, y0, x1 - x0, y1 - y0],
            "num_keypoints": count, "keypoints": keypoints,
            "segmentation": outline(owner[int(y0):int(y1), int(x0):int(x1)] == index, (x0, y0)),
            "keypoints_3d": np.round(camera.to_camera(person.keypoints), 4).tolist(),
        })  # fmt: skip
    return records


def _coco_keypoints(camera: Camera, person: Person, raster: Raster) -> tuple[list[float], int]:
    """Return x, y, v of the 17 keypoints, and how many have v > 0."""
    width, height = camera.size_wh
    depth = camera.to_camera(person.keypoints)[:, 2]
    tolerance = DEPTH_TOLERANCE * person.figure.build.height / 1.7
    flat: list[float] = []
    count = 0
    ahead = np.where(depth[:, None] > 0.05, person.keypoints, person.keypoints[depth.argmax()])
    for (x, y), z, slack in zip(camera.project(ahead).tolist(), depth.tolist(), tolerance.tolist(), strict=True):
        if z <= 0.05 or not (0 <= x < width and 0 <= y < height):
            flat += [0, 0, 0]
            continue
        nearest = float(raster.inverse_depth[int(y), int(x)])
        flat += [round(x, 2), round(y, 2), 1 if nearest * (z - slack) > 1 else 2]
        count += 1
    return flat, count


def _all_overlap(boxes: Array) -> bool:
    """Say whether each box (N, 4) overlaps another one by more than OVERLAP_IOU."""
    rows = [_as_box(row) for row in boxes.tolist()]
    return all(any(a is not b and _iou(a, b) > OVERLAP_IOU for b in rows) for a in rows)


def _box(camera: Camera, keypoints: Array) -> Box:
    """Return the box around a person's keypoints, (17, 3) world m, widened by flesh."""
    seen = camera.to_camera(keypoints)
    depth = np.maximum(seen[:, 2:], 0.3)
    slopes = seen[:, :2] / depth
    (x0, y0), (x1, y1) = slopes.min(axis=0).tolist(), slopes.max(axis=0).tolist()
    (cx, cy), focal = camera.centre_xy, camera.focal_px
    flesh = FLESH / float(depth[0, 0])
    return (
        focal * (x0 - flesh) + cx, focal * (y0 - flesh) + cy, focal * (x1 + flesh) + cx, focal * (y1 + flesh) + cy
    )  # fmt: skip


def _as_box(row: list[float]) -> Box:
    x0, y0, x1, y1 = row
    return x0, y0, x1, y1


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _shared(a: Box, b: Box) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def _iou(a: Box, b: Box) -> float:
    shared = _shared(a, b)
    return shared / max(_area(a) + _area(b) - shared, 1e-9)


def _cover(a: Box, b: Box) -> float:
    """Return the share of the smaller box that the other covers."""
    return _shared(a, b) / max(min(_area(a), _area(b)), 1e-9)


def _outside(box: Box, size_wh: tuple[int, int]) -> float:
    """Return the share of a box that the frame cuts off, one fifth of it for free."""
    return max(0.0, 1 - _shared(box, (0.0, 0.0, *size_wh)) / max(_area(box), 1e-9) - 0.2)


def camera_record(camera: Camera) -> dict[str, Any]:
    """Return a camera as it stands in an image record: see Scene.camera."""
    return {
        "focal": camera.focal_px, "principal_point": list(camera.centre_xy),
        "rotation": camera.rotation.tolist(), "translation": camera.translation.tolist(),
    }  # fmt: skip
