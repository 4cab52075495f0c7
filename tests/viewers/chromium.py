"""Headless Chromium, spoken to in the Chrome DevTools Protocol through a pipe: no port, no driver, no further library."""

import base64
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.peers.processes import tool

# WebGL in software; the rest keeps Chromium from talking to anybody but the page's own server.
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--proxy-server=127.0.0.1:9",
    "--proxy-bypass-list=127.0.0.1",
    "--hide-scrollbars",
    "--mute-audio",
)
# Chromium reads commands from descriptor 3 and answers on 4; Python's own descriptors may stand in the way there.
_LAUNCH = """
import fcntl, os, sys
inward, outward = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(inward, 3)
os.dup2(outward, 4)
os.close(inward)
os.close(outward)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PIPE_BYTES = 1 << 20
_ANSWER_S, _SCREENSHOTS = 60.0, 3


class PageError(AssertionError):
    """A script in the page failed, or what was waited for did not show."""


class NoAnswer(PageError):
    """The browser did not answer a command in time."""


class Chromium:
    """One browser with one page. `said` collects what the page wrote to its console as warnings, errors and exceptions."""

    def __init__(self, profile: Path, *, width: int = 1600, height: int = 1000) -> None:
        self.said: list[str] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._last_id = 0
        self._session: str | None = None
        commands_read, self._commands = os.pipe()
        self._events, events_written = os.pipe()
        with suppress(OSError):
            fcntl.fcntl(self._events, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        profile.mkdir(parents=True, exist_ok=True)
        command = [tool("chromium", "chromium"), *OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        with (profile / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(commands_read), str(events_written), *command, "about:blank"],
                pass_fds=(commands_read, events_written),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)},
                start_new_session=True,
            )
        os.close(commands_read)
        os.close(events_written)
        self._log = profile / "chromium.log"
        threading.Thread(target=self._read, name="devtools", daemon=True).start()
        self._open_page(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and all its helpers."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        with suppress(OSError):
            os.close(self._commands)

    # --- what a person does

    def open(self, address: str) -> None:
        """Goes to an address; returns before the page is ready."""
        self.said.clear()
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise's result. Raises PageError."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise PageError(f"{script[:200]}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait_for(self, script: str, *, timeout_s: float = 60.0, what: str = "") -> Any:
        """The first truthy value of an expression. Raises PageError with what the page said."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(PageError):
                if value := self.evaluate(script):
                    return value
            if time.monotonic() > deadline:
                raise PageError(f"not seen within {timeout_s:g} s: {what or script}; the page said: {self.said[-5:]}")
            time.sleep(0.1)

    def click(self, selector: str, *, times: int = 1) -> None:
        """Clicks in the middle of the first element of a CSS selector."""
        box = self.wait_for(f"""(() => {{
            const one = document.querySelector({json.dumps(selector)});
            if (!one) return null;
            one.scrollIntoView({{block: 'center'}});
            const box = one.getBoundingClientRect();
            return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null;
        }})()""", timeout_s=120, what=selector)  # fmt: skip
        self.click_at(box[0], box[1], times=times)

    def click_at(self, x: float, y: float, *, times: int = 1) -> None:
        """Clicks at a place of the page, in CSS pixels."""
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    def screenshot(self, path: Path, *, clip: Sequence[float] | None = None) -> Path:
        """What the page shows, as PNG. `clip`: x, y, width, height in CSS pixels."""
        region = {"clip": dict(zip(("x", "y", "width", "height"), clip, strict=True), scale=1)} if clip else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(_SCREENSHOTS)):
            try:
                path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **region)["data"]))
            except NoAnswer:  # Chromium waits for a next frame, which a page at rest may not draw
                if not left:
                    raise
            else:
                break
        return path

    def before_every_page(self, script: str) -> None:
        """Runs a script ahead of every page's own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    # --- the protocol

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer. Raises PageError."""
        self._last_id += 1
        number = self._last_id
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._commands, data) :]
        with self._arrived:
            if not self._arrived.wait_for(lambda: number in self._answers, timeout=_ANSWER_S):
                raise NoAnswer(f"Chromium did not answer {method}; its log: {self._log.read_text(errors='replace')[-2000:]}")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _open_page(self, width: int, height: int) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _read(self) -> None:
        """Answers go to whoever asked, the page's complaints to `said`."""
        handlers: dict[str, Callable[[dict[str, Any]], str]] = {
            "Runtime.consoleAPICalled": _console_line,
            "Runtime.exceptionThrown": lambda event: f"exception: {event['exceptionDetails']}"[:1500],
            "Log.entryAdded": lambda event: f"{event['entry']['level']}: {event['entry']['text']}"[:1500],
        }
        waiting = bytearray()
        while data := os.read(self._events, _PIPE_BYTES):
            waiting += data
            while (end := waiting.find(b"\0")) >= 0:
                message = json.loads(bytes(waiting[:end]))
                del waiting[: end + 1]
                if "id" in message:
                    with self._arrived:
                        self._answers[message["id"]] = message
                        self._arrived.notify_all()
                elif message["method"] in handlers and (line := handlers[message["method"]](message["params"])):
                    self.said.append(line)
        os.close(self._events)


def _console_line(event: dict[str, Any]) -> str:
    if event["type"] not in ("error", "warning", "assert"):
        return ""
    parts = (str(one.get("value", one.get("description", ""))) for one in event["args"])
    return f"{event['type']}: {' '.join(parts)}"[:1500]
