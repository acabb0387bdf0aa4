"""Drives Debian's Chromium without a driver: commands of its DevTools over a pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
PATIENCE = 240  # seconds, after which something hangs
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")


class Chromium:
    """One page of a headless browser.

    Args:
        profile: A folder of its own.
    """

    def __init__(self, profile: Path) -> None:
        theirs_in, self.output = os.pipe()
        self.input, theirs_out = os.pipe()
        options = (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900")
        # It reads commands from 3 and writes answers to 4.
        words = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", words, PROGRAM, "--remote-debugging-pipe", *options],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.received, self.events = 0, b"", []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.input)
        os.close(self.output)

    def call(self, method: str, **params: Any) -> dict:
        """Sends a command; returns its answer, and keeps the events that come before it."""
        self.number += 1
        message = dict(id=self.number, method=method, params=params)
        if self.session:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict:
        while b"\0" not in self.received:
            ready, _, _ = select.select([self.input], [], [], PATIENCE)
            part = os.read(self.input, 1 << 16) if ready else b""
            assert part, "the browser ended or hangs"
            self.received += part
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it comes to."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Waits until a JavaScript expression is true; returns its value."""
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.1)
        return value

    def choose_file(self, selector: str, path: Path) -> None:
        """Gives a file to an input of the page."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def fetch(self, address: str) -> bytes:
        """What the page gets from an address."""
        script = (
            f"fetch({address!r}).then(r => r.arrayBuffer()).then(b => {{let s = '';"
            " for (const c of new Uint8Array(b)) s += String.fromCharCode(c); return btoa(s)})"
        )
        return base64.b64decode(self.evaluate(script))

    def requests(self) -> list[str]:
        """Addresses that the page has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
