"""A Kalman filter for every coordinate of every keypoint of every person, in whole arrays.

Each coordinate has a position and a velocity, pushed by random acceleration. What it measures comes with the model's
own sigma: a coordinate the network is unsure of moves the estimate less.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ACCELERATION = 1.0
"""Strength of the random acceleration, body sizes per s^1.5 (the root of its spectral density). Chosen on synth video
by benchmarks/smooth.py: a smaller one lags, a greater one jitters."""
FIRST_SPEED = 1.0
"""Standard deviation of the velocity of somebody new, body sizes per s."""
SWING_S = 0.4
"""A limb's own velocity, beyond the body's, fades with this time constant: limbs swing back."""


@dataclass
class KalmanState:
    """The estimates of T people; each array is (T, K, 2), px and s."""

    position: Array
    velocity: Array
    var_position: Array
    covariance: Array
    """Of position and velocity."""
    var_velocity: Array

    @classmethod
    def none(cls, num_keypoints: int) -> KalmanState:
        """Make the state of nobody."""
        return cls(*(np.zeros((0, num_keypoints, 2)) for _ in fields(cls)))

    @classmethod
    def first(cls, measured: Array, variance: Array, size: Array) -> KalmanState:
        """Make the state of people seen once.

        Args:
            measured: (T, K, 2) px.
            variance: (T, K, 2) px², of the measurement.
            size: (T,) px, of the body.
        """
        speed = np.broadcast_to((FIRST_SPEED * size[:, None, None]) ** 2, measured.shape)
        zeros = np.zeros(measured.shape)
        return cls(measured.copy(), zeros, variance.copy(), zeros.copy(), speed.copy())

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> KalmanState:
        """Return the state of some of the people."""
        return KalmanState(*(getattr(self, item.name)[rows] for item in fields(self)))

    def joined(self, other: KalmanState) -> KalmanState:
        """Return the state of both."""
        return KalmanState(
            *(np.concatenate([getattr(self, item.name), getattr(other, item.name)]) for item in fields(self))
        )

    def predict(self, dt: float, size: Array) -> None:
        """Move on in time.

        Args:
            dt: s.
            size: (T,) px, of each body.
        """
        body = np.median(self.velocity, axis=1, keepdims=True)
        kept = float(np.exp(-dt / SWING_S))
        density = (ACCELERATION * size[:, None, None]) ** 2
        self.position = self.position + dt * self.velocity
        self.velocity = body + kept * (self.velocity - body)
        self.var_position = (
            self.var_position + 2 * dt * self.covariance + dt * dt * self.var_velocity + density * dt**3 / 3
        )
        self.covariance = kept * (self.covariance + dt * self.var_velocity) + density * dt**2 / 2
        self.var_velocity = kept * kept * self.var_velocity + density * dt

    def update(self, rows: NDArray[np.intp], measured: Array, variance: Array) -> None:
        """Take measurements of some of the people in.

        Args:
            rows: (M,) whose.
            measured: (M, K, 2) px.
            variance: (M, K, 2) px², of the measurement.
        """
        innovation = measured - self.position[rows]
        total = self.var_position[rows] + variance
        gain, gain_velocity = self.var_position[rows] / total, self.covariance[rows] / total
        self.position[rows] += gain * innovation
        self.velocity[rows] += gain_velocity * innovation
        self.var_velocity[rows] -= gain_velocity * self.covariance[rows]
        self.covariance[rows] *= 1 - gain
        self.var_position[rows] *= 1 - gain
