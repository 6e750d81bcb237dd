"""Show a source's poses to whoever looks, until it ends or is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mdpose_edge.errors import MdposeError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.stream.frames import FrameSource
from mdpose_edge.stream.pipeline import Tracker, run_pipeline
from mdpose_edge.stream.result import FrameResult, Report
from mdpose_edge.view.hub import Hub, InferredFrame, describe
from mdpose_edge.view.server import ViewServer

STAGES = ("preprocess", "engine", "decode")
"""Whose times viewers see; capturing is left out, since it mostly waits for the next frame."""


class ViewSink:
    """Hands what the pipeline is done with to the hub.

    Args:
        hub: whose viewers see it.
        source: its count of dropped frames is shown.
    """

    def __init__(self, hub: Hub, source: FrameSource) -> None:
        self._hub, self._source, self._frames = hub, source, 0

    def write(self, result: FrameResult) -> None:
        """Show a frame; see Sink."""
        self._frames += 1
        self._hub.show(
            InferredFrame(
                index=result.frame.index,
                image_bgr=result.frame.image_bgr,
                poses=result.poses,
                ids=result.track_ids,
                stages_ms={name: ms for name, ms in result.stage_ms.items() if name != "capture"},
                latency_ms=result.latency_ms,
                dropped=self._source.dropped,
            )
        )

    def close(self) -> None:
        """Do nothing: how the run ended is told to viewers by `view_source`."""

    def summary(self) -> dict[str, Any]:
        """Say what was shown."""
        return {"kind": "view", "frames": self._frames}


def view_source(
    estimator: PoseEstimator,
    source: FrameSource,
    *,
    model: str,
    threshold: float,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    tracker: Tracker | None = None,
    max_fps: float = 30.0,
    stop: threading.Event | None = None,
    ready: Callable[[str], None] | None = None,
) -> Report:
    """Serve the page while the pipeline runs.

    Args:
        estimator: made on this thread.
        source: iterated and closed.
        model: how the page names the artifact.
        threshold: the estimator's: the page's slider reaches down to it, and starts at the model's own.
        host: the address or name to listen on.
        port: 0 lets the system choose.
        token: what viewers must know; needed on any address but loopback.
        tracker: names people over time, or None.
        max_fps: frames a viewer gets at most, per second.
        stop: set it to end.
        ready: called with the page's address once it can be opened.

    Returns:
        What the pipeline did.

    Raises:
        MdposeError: the address cannot be used, or the source or the engine fails.
    """
    classes = estimator.spec.classes
    about = describe(
        model=model,
        engine=estimator.engine,
        precision=estimator.spec.precision,
        source=source.name,
        threshold=threshold,
        start=estimator.spec.decode.score_threshold,
        stages=[*STAGES, *(["track"] if tracker is not None else [])],
        keypoints=estimator.spec.keypoints,
        tracked=tracker is not None,
        classes=classes if len(classes) > 1 else (),
    )
    hub, end = Hub(about, max_fps=max_fps), "stopped"
    try:
        with ViewServer(hub, host=host, port=port, token=token) as server:
            if ready is not None:
                ready(server.url)
            try:
                report = run_pipeline(estimator, source, [ViewSink(hub, source)], tracker=tracker, stop=stop)
                stopped = report.stopped or (stop is not None and stop.is_set())  # a paced file may notice first
                end = "stopped" if stopped else "the source has ended"
            except MdposeError as error:
                end = str(error)
                raise
            finally:
                hub.end(end)
    finally:
        hub.end(end)  # where the server could not start
    return report
