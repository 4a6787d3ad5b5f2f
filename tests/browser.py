"""Drive a notebook in a real browser: JupyterLab on this machine, the system's Chromium, Playwright between them.

    with lab(folder) as server, chrome(shots=Path("build/shots")) as new_page:
        p = new_page()
        open_notebook(p, server, "01_memory.ipynb")
        run_all(p)
        p.locator(".noUi-handle").first.focus()

Nothing is downloaded, nothing of the user's settings is read, and a request to any other machine is stopped and
remembered in `p.outside`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HOME = "127.0.0.1"
QUIET = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0


def chromium() -> str | None:
    """The system's Chromium or Chrome: $CHROMIUM, or the first found on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@dataclass
class Server:
    """A running JupyterLab."""

    url: str
    token: str
    root: Path


@contextlib.contextmanager
def lab(root: Path, timeout_s: float = 60) -> Iterator[Server]:
    """JupyterLab on a free port over the folder `root`, with private settings, workspaces and history."""
    with socket.socket() as s:
        s.bind((HOME, 0))
        port = s.getsockname()[1]
    token = hashlib.sha256(os.urandom(16)).hexdigest()[:16]
    with tempfile.TemporaryDirectory(prefix="nlbook-lab") as home:
        for plugin, value in QUIET.items():
            folder, name = plugin.split(":")
            file = Path(home, "settings", folder, f"{name}.jupyterlab-settings")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(value), encoding="utf-8")
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "run",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        env = os.environ | {k: f"{home}/{v}" for k, v in own.items()}
        env |= {"JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1", "NLBOOK_STORE": f"{home}/store"}
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            f"--ip={HOME}",
            f"--port={port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={token}",
            f"--ServerApp.root_dir={root}",
            "--LabApp.extension_manager=readonly",
            "--LabApp.news_url=None",
            "--LabApp.expose_app_in_browser=True",
        ]
        log = Path(home, "lab.log")
        with log.open("w") as out:
            process = subprocess.Popen(command + ["--allow-root"] * ROOT_USER, env=env, stdout=out, stderr=out)
        try:
            _wait_for(f"http://{HOME}:{port}/api/status?token={token}", process, log, timeout_s)
            yield Server(f"http://{HOME}:{port}", token, root)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"JupyterLab did not start in {timeout_s} s:\n{log.read_text()[-3000:]}") from None
            time.sleep(0.1)


@dataclass
class Page:
    """A browser page that keeps what went wrong in it: `errors` (JavaScript, console) and `outside` (requests)."""

    page: Any
    shots: Path
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def shot(self, name: str) -> None:
        """A screenshot among the artefacts."""
        self.shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self.shots / f"{name}.png")


@contextlib.contextmanager
def chrome(shots: Path) -> Iterator[Callable[..., Page]]:
    """A headless Chromium; what it yields makes a page, `new_page(width=1280, height=1000)`, that reaches only here."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        args = ["--disable-dev-shm-usage", "--disable-gpu", *["--no-sandbox"] * ROOT_USER]
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=args)

        def new_page(
            width: int = 1280, height: int = 1000, scheme: Literal["light", "dark"] = "light", scripts: bool = True
        ) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                java_script_enabled=scripts,
                permissions=["clipboard-read", "clipboard-write"],
            )
            made = Page(context.new_page(), shots)

            def gate(route: Any) -> None:
                url = route.request.url
                if url.startswith((f"http://{HOME}:", f"ws://{HOME}:", "data:", "blob:", "file:")):
                    route.continue_()
                else:
                    made.outside.append(url)
                    route.abort()

            made.page.route("**/*", gate)
            made.page.on("pageerror", lambda error: made.errors.append(str(error)))
            made.page.on("console", lambda m: made.errors.append(m.text) if m.type == "error" else None)
            return made

        try:
            yield new_page
        finally:
            browser.close()


def open_notebook(p: Page, server: Server, name: str, timeout_s: float = 60) -> None:
    """Show a notebook of the server's folder in JupyterLab and wait until its kernel can be spoken to.

    A run asked for before the kernel's web socket is connected is lost without a word, and the status already says
    idle then: the connection is what to wait for.
    """
    p.goto(f"{server.url}/doc/tree/{name}?token={server.token}")  # /doc: the single-document mode
    p.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=timeout_s * 1000)
    p.wait_for_function(
        "() => { const k = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;"
        " return k && k.connectionStatus === 'connected' && k.status === 'idle'; }",
        timeout=timeout_s * 1000,
    )
    p.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.info")


def run_all(p: Page, timeout_s: float = 120) -> None:
    """Run every cell; AssertionError with source and output if one failed or did not run."""
    p.evaluate(
        "() => { window.nlbookRan = false; window.jupyterapp.commands.execute('notebook:run-all-cells')"
        ".finally(() => { window.nlbookRan = true; }); }"
    )
    p.wait_for_function("() => window.nlbookRan", timeout=timeout_s * 1000)  # evaluate() has no timeout, this has
    bad = p.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells]
        .map((c, i) => [i, c.toJSON()])
        .filter(([i, c]) => c.cell_type === 'code' && c.source.toString().trim()
          && (c.execution_count === null || c.outputs.some((o) => o.output_type === 'error')))
        .map(([i, c]) => `cell ${i}: ${c.source}\\n${JSON.stringify(c.outputs).slice(0, 2000)}`)"""
    )
    assert not bad, "cells that failed or did not run:\n" + "\n".join(bad)


PIXELS = """(root) => [...root.querySelectorAll('img, canvas')]
    .filter((e) => e.tagName === 'CANVAS' || e.naturalWidth)
    .map((e) => { const c = document.createElement('canvas'); c.width = e.naturalWidth || e.width;
      c.height = e.naturalHeight || e.height; c.getContext('2d').drawImage(e, 0, 0); return c.toDataURL(); })
    .join('|')"""


def picture(box: Any) -> str:
    """A digest of the pixels of all images and canvases inside a locator."""
    return hashlib.sha256(box.evaluate(PIXELS).encode()).hexdigest()


def wait_text(p: Page, box: Any, text: str, timeout_s: float = 20) -> None:
    """Wait until the text of `box` holds `text`."""
    p.wait_for_function(
        "([e, t]) => e.textContent.includes(t)", arg=[box.element_handle(), text], timeout=timeout_s * 1000
    )


def wait_change(p: Page, box: Any, old: str, timeout_s: float = 20) -> float:
    """Seconds until the picture in `box` is no longer `old`."""
    start = time.perf_counter()
    while time.perf_counter() - start < timeout_s:
        if picture(box) != old:
            return time.perf_counter() - start
        p.wait_for_timeout(15)
    raise AssertionError(f"the picture did not change within {timeout_s} s")


def drag(p: Page, handle: Any, dx: float, steps: int = 12) -> None:
    """Take a slider's handle with the mouse and pull it dx pixels to the right."""
    handle.scroll_into_view_if_needed()
    at = handle.bounding_box()
    x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
    p.mouse.move(x, y)
    p.mouse.down()
    p.mouse.move(x + dx, y, steps=steps)
    p.mouse.up()
