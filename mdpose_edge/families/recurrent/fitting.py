"""What is fitted to a trained network: the table of standard deviations, from the people whom it finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

import numpy as np

from mdpose_edge.families.base import Finished, FitImage
from mdpose_edge.families.heat_sigma import Observations, fit, prior
from mdpose_edge.families.recurrent.decode import EVALUATION, RecurrentDecoder
from mdpose_edge.families.recurrent.heads import constants_of
from mdpose_edge.oks import oks_matrix
from mdpose_edge.spec import ModelSpec

FOUND = 0.5
"""OKS from which on a pose is of a person: its errors are the table's."""


def finish(spec: ModelSpec, images: Iterable[FitImage]) -> Finished:
    """Fit the table: see `families.base.Finishing`."""
    decoder = RecurrentDecoder(spec, EVALUATION)
    found = [one for image in images if (one := observations_of(decoder, image, spec.keypoints.sigmas)) is not None]
    if not found:
        return Finished(spec, {}, "nothing was fitted: the network finds nobody")
    seen = Observations(
        np.concatenate([one.errors_xy for one in found]),
        np.concatenate([one.sizes for one in found]),
        np.concatenate([one.heat for one in found]),
        np.concatenate([one.labelled for one in found]),
    )
    constants = replace(constants_of(spec), sigma=fit(prior(spec.keypoints.sigmas), seen))
    return Finished(replace(spec, constants=asdict(constants)), {}, f"fitted sigma to {len(seen.sizes)} people")


def observations_of(decoder: RecurrentDecoder, image: FitImage, sigmas: tuple[float, ...]) -> Observations | None:
    """Compare the people of one image with the annotated ones whom they resemble; None where nobody is found."""
    people = decoder.read(image.heads)
    if not len(people.scores) or not len(image.areas):
        return None
    oks = oks_matrix(people.keypoints, image.keypoints_xy, image.labelled, image.areas, sigmas)
    best, near = oks.argmax(axis=1), oks.max(axis=1) >= FOUND
    if not near.any():
        return None
    errors = people.keypoints - image.keypoints_xy[best]
    return Observations(errors[near], people.sizes[near], people.heat[near], image.labelled[best][near])
