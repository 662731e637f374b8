"""A real headless Chromium, driven over its DevTools protocol: what it drew, said, and asked the network for."""

import asyncio
import base64
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian package: chromium)")
DESKTOP, PHONE = (1200, 800), (390, 844)


class Tab:
    """A page that is open: ``said`` has what its console said, ``asked`` every address that it asked for."""

    def __init__(self, socket):
        self.socket, self.said, self.asked, self.calls, self.waiting = socket, [], [], 0, {}
        self.loaded = asyncio.Event()

    async def listen(self):
        async for message in self.socket:
            told = message.json()
            if "id" in told:
                self.waiting.pop(told["id"]).set_result(told)
            elif told["method"] == "Page.loadEventFired":
                self.loaded.set()
            elif told["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.said.append(told["params"])
            elif told["method"] == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])

    async def call(self, method, **params):
        self.calls += 1
        answer = self.waiting[self.calls] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": self.calls, "method": method, "params": params})
        told = await asyncio.wait_for(answer, 60)
        assert "result" in told, told
        return told["result"]

    async def run(self, script):
        """What a script gives; it may be a promise."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def show(self, address, size=DESKTOP, *, dark=False, media=""):
        """Open an address, or a file, as on a screen or on another medium."""
        width, height = size
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", media=media, features=[theme])
        self.loaded.clear()
        await self.call("Page.navigate", url=address.as_uri() if isinstance(address, Path) else address)
        await asyncio.wait_for(self.loaded.wait(), 60)

    async def point(self, x, y):
        """Move the mouse."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def press(self, key):
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def picture(self, path, *, whole=False):
        """What is in view, or the whole page, as PNG."""
        made = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(made["data"]))


@asynccontextmanager
async def open_tab(folder):
    """Chromium with one page, whose profile lies in a folder."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank",
    ]  # fmt: skip
    browser = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        while not (line := (await browser.stderr.readline()).decode()).startswith("DevTools listening on "):
            assert line, "Chromium ended"
        root = "http://" + line.split("ws://", 1)[1].split("/", 1)[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{root}/json") as answer:
                page = next(each for each in await answer.json() if each["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                yield tab
                listening.cancel()
    finally:
        browser.terminate()
        await browser.communicate()
