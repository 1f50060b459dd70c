"""A page in headless Chromium, driven through the DevTools protocol over a pipe: no port, no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile

KEYS = {"Enter": (13, "\r"), "Tab": (9, "")}
CONTROL = 2


class Page:
    """A browser with one page, until the end of the with block. `problems` has every error and warning of its console."""

    def __init__(self, url, width=1100, height=900, timeout=120):
        self.url, self.size, self.timeout = url, (width, height), timeout

    def __enter__(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            raise RuntimeError("no chromium: ./setup.sh all installs it")
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_commands, self.commands = os.pipe()
        self.answers, write_answers = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4: what goes there must not be there yet.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read_commands, write_answers)]
        arguments = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "about:blank"]
        self.child = os.posix_spawn(program, arguments, dict(os.environ, HOME=self.profile.name), file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, ends[0], 3), (os.POSIX_SPAWN_DUP2, ends[1], 4)])
        for end in (read_commands, write_answers, *ends):
            os.close(end)
        self.number, self.buffer, self.session = 0, b"", None
        self.problems, self.requests, self.loads = [], [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in "Log", "Runtime", "Page", "Network":
            self.call(domain + ".enable")
        self.show(*self.size)
        self.open(self.url)
        return self

    def __exit__(self, *_):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()

    def open(self, url):
        loads = self.loads
        self.call("Page.navigate", url=url)
        while self.loads == loads:
            self._take(self._receive())

    def show(self, width, height, dark=False, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
                  mobile=phone)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def value(self, expression):
        """Of JavaScript; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition):
        """Waits until the expression is true, looking at each change of the page."""
        self.value(f"""new Promise((done) => {{
            const look = () => {{ if ({condition}) {{ watch.disconnect(); done(); }} }};
            const watch = new MutationObserver(look);
            watch.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
            look();
        }})""")

    def click(self, selector):
        """With the mouse, where the element is: what covers it gets the click."""
        x, y = self.value(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: 'nearest' }});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in "mousePressed", "mouseReleased":
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """In place of what a field holds."""
        self.click(selector)
        self.value("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def press(self, key, modifiers=0):
        code, text = KEYS[key]
        for kind in "keyDown", "keyUp":
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text,
                      modifiers=modifiers)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data):]
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._take(answer)

    def _receive(self):
        while b"\0" not in self.buffer:
            assert select.select([self.answers], [], [], self.timeout)[0], "the browser says nothing"
            piece = os.read(self.answers, 1 << 16)
            assert piece, "the browser has ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def _take(self, event):
        method, parameters = event.get("method"), event.get("params")
        if method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(str(parameters["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loads += 1
