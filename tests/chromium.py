"""Headless Chromium (Debian's package ``chromium``), driven over its debugging pipe: real keys and clicks."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

_SHELL = 'exec "$0" "$@" 3<&{read} 4>&{write}'
"""Chromium reads commands from descriptor 3 and writes answers to 4."""
_KEYS = {"Backspace": 8, "Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowDown": 40}


class Chromium:
    """One browser with one page."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium")
        assert program, "install chromium"
        (commands_out, commands_in), (answers_out, answers_in) = os.pipe(), os.pipe()
        shell = _SHELL.format(read=commands_out, write=answers_in)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(commands_out, answers_in),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        self._commands, self._answers = os.fdopen(commands_in, "wb"), os.fdopen(answers_out, "rb")
        self._numbers, self._read, self.requests = itertools.count(1), b"", list[str]()
        self._session = ""
        [page] = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        target = {"targetId": page["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", target)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Give a command of the DevTools protocol, and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params or {}}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._next()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            block = os.read(self._answers.fileno(), 1 << 16)
            assert block, "chromium has ended"
            self._read += block
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def open(self, address: str) -> None:
        self.call("Page.navigate", {"url": address})
        self.until("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        result = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Return once an expression is true. It is asked again in every frame of the page."""
        wait = f"new Promise(done => (function ask() {{ ({condition}) ? done() : setTimeout(ask, 5) }})())"
        self.value(wait)

    def press(self, key: str, *, repeat: bool = False) -> None:
        """Press and release a key; with ``repeat``, as a held key does a moment later."""
        code = _KEYS.get(key, ord(key[0].upper()))
        pressed: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "autoRepeat": repeat}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "text": text, **pressed})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **pressed})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait()
        self._commands.close()
        self._answers.close()
