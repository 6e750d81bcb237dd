"""Headless Chromium, driven over DevTools' pipe: JSON messages that end in a zero byte, no port and no library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_S = 60.0


def find_browser() -> str:
    """The browser's path, or a skip that says which were looked for."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no headless browser: none of {', '.join(BROWSERS)} is installed (Debian's chromium is enough)")
    return found


class Chromium:
    """One browser with one page.

    Args:
        folder: for its profile and downloads.
        size_wh: of its window, px.
    """

    def __init__(self, folder: Path, size_wh: tuple[int, int] = (1200, 720)) -> None:
        self._folder = folder
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        ends = {3: to_browser, 4: from_browser}

        def place_pipes() -> None:
            """Return the browser its ends as file 3 and 4; first out of each other's way."""
            for number, end in {number: os.dup2(end, 60 + number) for number, end in ends.items()}.items():
                os.dup2(end, number)

        command = [find_browser(), *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
        self._process = subprocess.Popen(
            [*command, f"--window-size={size_wh[0]},{size_wh[1]}", "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=place_pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count, self.events = b"", 0, list[dict[str, Any]]()
        self._session: str | None = None
        page = next(t for t in self._send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address."""
        self._send("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript in the page and give its value."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and give its value."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (value := self.run(expression)):
            assert time.monotonic() < deadline, f"{expression} never came true"
            time.sleep(0.05)
        return value

    def screenshot(self, path: Path) -> Path:
        """Keep what the window shows."""
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"]))
        return path

    def keep_downloads(self) -> Path:
        """Let the page save files, and say where they come to lie."""
        folder = self._folder / "downloads"
        folder.mkdir()
        self._send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        return folder

    def complaints(self) -> list[str]:
        """What went wrong in the page: exceptions, and errors such as a broken Content-Security-Policy."""
        self.run("0")  # whatever was said before this answer has been read
        found = [json.dumps(e["params"]) for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        entries = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return found + [entry["text"] for entry in entries if entry["level"] == "error"]

    def requested(self) -> list[str]:
        """Every address that the page asked for."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer
