"""Works through the student copies in a real browser, as a learner does, and keeps screenshots in output/browser.

Called by `python3 run.py browser [00 03 ...]`. JupyterLab runs on loopback with settings and folders of its own, on
copies of the copies; the browser is the system's Chromium or Chrome (CDT_BROWSER names another one).
"""

import argparse
import importlib
import inspect
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tools.copies import NOT_YOURS, sources, tags  # noqa: E402

OUT = ROOT / "output" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
TOKEN = "local"  # of a server that listens on loopback for as long as this script runs
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',  # else cells out of sight are not drawn
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "@jupyterlab/docmanager-extension/plugin": '{"defaultViewers": {"markdown": "Markdown Preview"}}',
}


def find_browser() -> str:
    """Returns the browser's path, or ends with one line that says what is missing."""
    named = os.environ.get("CDT_BROWSER")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found or not Path(found).exists():
        sys.exit(f"run.py: no browser found ({named or ', '.join(BROWSERS[:3])}). Install Chromium (on Debian or "
                 "Ubuntu: sudo apt-get install chromium) or name a Chromium or Chrome with CDT_BROWSER")
    return found


def room(folder: Path) -> None:
    """Fills a fresh folder with what a learner has: student copies, the landing page, the glossary."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "workshop" / "student", folder / "workshop" / "student")
    (folder / "notebooks").mkdir()
    for name in ("START.md", "GLOSSARY.md"):
        shutil.copy(ROOT / "notebooks" / name, folder / "notebooks" / name)


class Lab:
    """JupyterLab on a free port of loopback, with its own settings; ends with the `with` block."""

    def __init__(self, folder: Path):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.folder, self.home = folder, folder.parent / "jupyter"
        self.log = (folder.parent / "server.log").open("w", encoding="utf-8")

    def url(self, path: str) -> str:
        """The address of a path in JupyterLab."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{path}?reset&token={TOKEN}"

    def __enter__(self) -> "Lab":
        shutil.rmtree(self.home, ignore_errors=True)
        for name, text in SETTINGS.items():
            path = self.home / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        own = {"CONFIG_DIR": "config", "RUNTIME_DIR": "runtime"}
        variables = os.environ | {f"JUPYTER_{name}": str(self.home / folder) for name, folder in own.items()}
        variables |= {"JUPYTERLAB_SETTINGS_DIR": str(self.home / "settings"),
                      "JUPYTERLAB_WORKSPACES_DIR": str(self.home / "workspaces"),
                      "CDT_LITE_PROGRESS": str(self.home / "progress")}
        variables.pop("CDT_STRICT", None)
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--ip=127.0.0.1",
                   f"--port={self.port}", f"--ServerApp.root_dir={self.folder}", f"--IdentityProvider.token={TOKEN}",
                   "--ServerApp.port_retries=0"]
        command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        self.process = subprocess.Popen(command, env=variables, stdout=self.log, stderr=subprocess.STDOUT, cwd=ROOT)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=2).close()
                return self
            except OSError:
                time.sleep(0.5)
        self.__exit__()
        sys.exit(f"run.py: JupyterLab did not start; its messages are in {self.log.name}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


class Visit:
    """One notebook in the browser; problems are collected, not raised, so that all of them are seen."""

    def __init__(self, page: Any, path: Path):
        self.page, self.path, self.number = page, path, path.name[:2]
        self.notebook = nbformat.read(path, as_version=4)
        self.problems: list[str] = []

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls one function of browser.js and waits for what it promises."""
        return self.page.evaluate("([name, given]) => window.cdt[name](...given)", [name, list(arguments)])

    def shot(self, what: str) -> None:
        """Keeps a picture of the window."""
        self.page.wait_for_timeout(700)  # what was scrolled to is drawn
        self.page.screenshot(path=OUT / f"{self.number}_{what}.png")

    def expect(self, holds: bool, told: str) -> None:
        """Notes a problem."""
        if not holds:
            self.problems.append(told)

    def index(self, *wanted: str, exercise: str = "") -> int | None:
        """The first cell with these tags."""
        return next((i for i, cell in enumerate(self.notebook.cells) if tags(cell) >= set(wanted)
                     and (not exercise or cell.metadata.get("exercise") == exercise)), None)

    def run_all(self) -> None:
        """Opens the copy, runs all cells, looks for errors."""
        cells, wanted = self.call("open", f"workshop/student/{self.path.name}"), len(self.notebook.cells)
        self.expect(cells == wanted, f"{cells} cells on the page, {wanted} in the file")
        self.shot("1_opened")
        self.call("runAll")
        self.problems += self.call("problems")
        pictures = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea img")
        self.expect(pictures.count() > 0, "no picture on the page")
        for i in range(min(pictures.count(), 2)):
            pictures.nth(i).scroll_into_view_if_needed()
            self.shot(f"2_figure_{i + 1}")
        self.call("show", len(self.notebook.cells) - 1)
        self.shot("5_end")

    def solve(self) -> None:
        """Answers the first exercise wrongly in two ways, then rightly, and reads what `check` says each time."""
        at = self.index("exercise")
        if at is None:
            self.problems.append("no exercise found")
            return
        number = str(self.notebook.cells[at].metadata["exercise"])
        below = self.index("check", exercise=number)
        module = importlib.import_module(f"exercises.ex_{number.replace('.', '_')}")
        function = self.notebook.cells[below].source.split(f'check("{number}", ')[1].split(")")[0]
        wrong = [(name, inspect.getdoc(value) or "?") for name, value in vars(module).items()
                 if name.startswith("wrong_")][:2]
        self.expect("not attempted yet" in self.call("text", below), f"{number}: the stub is not named as untouched")
        stub, said = self.notebook.cells[at].source, []
        for k, (name, hint) in enumerate(wrong):
            self.call("put", at, f"{stub}\n\n\n{inspect.getsource(module)}\n\n{function} = {name}")
            self.call("run", below)
            said.append(self.call("text", below))
            self.expect(hint in " ".join(said[-1].split()), f"{number}: {name} did not get the hint {hint!r}")
            self.call("show", below)
            self.shot(f"3_wrong_{k + 1}")
        self.expect(len(set(said)) == 2, f"{number}: the hint did not change")
        solved = nbformat.read(ROOT / "notebooks" / self.path.name, as_version=4)
        answer = next(cell.source for cell in solved.cells if cell.id == self.notebook.cells[at].id)
        self.expect(NOT_YOURS in stub and NOT_YOURS not in answer, f"{number}: stub and answer are mixed up")
        self.call("put", at, answer)
        self.call("run", below)
        self.expect("Well done." in self.call("text", below), f"{number}: the right answer was not accepted")
        self.call("show", below)
        self.shot("4_right")

    def slide(self) -> None:
        """Moves every slider of the notebook by its keyboard and sees reading and picture change."""
        handles = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .widget-slider .noUi-handle")
        self.expect(self.number != "03" or handles.count() > 0, "no slider on the page")
        for i in range(handles.count()):
            handle = handles.nth(i)
            handle.scroll_into_view_if_needed()
            box = handle.locator("xpath=ancestor::*[contains(@class, 'widget-interact')][1]")
            before, picture = handle.get_attribute("aria-valuenow"), box.locator("img").first.get_attribute("src")
            self.shot(f"6_slider_{i + 1}_before")
            handle.focus()
            low = handle.get_attribute("aria-valuemin")
            for _ in range(3):
                self.page.keyboard.press("ArrowRight" if before == low else "ArrowLeft")
            shown, seen = box.locator("img"), [picture]
            for _ in range(120):  # until the picture has changed and stays: the kernel draws every value in between
                self.page.wait_for_timeout(500)
                seen.append(shown.first.get_attribute("src") if shown.count() else None)
                if seen[-1] not in (None, picture) and len(set(seen[-5:])) == 1:
                    break
            moved, changed = handle.get_attribute("aria-valuenow") != before, seen[-1] not in (None, picture)
            self.expect(moved and changed, f"slider {i + 1}: value changed {moved}, picture changed {changed}")
            self.shot(f"6_slider_{i + 1}_after")


def visit(page: Any, path: Path) -> list[str]:
    """Works through one copy; returns what was wrong."""
    from playwright.sync_api import Error

    begin, guest = time.monotonic(), Visit(page, path)
    try:
        guest.run_all()
        guest.slide()
        guest.solve()
        guest.call("close")
    except Error as error:
        guest.problems.append(str(error).splitlines()[0])
        guest.shot("9_stopped")
    print(f"{path.stem}: {time.monotonic() - begin:.0f} s, {len(guest.problems)} problem(s)", flush=True)
    for problem in guest.problems:
        print(f"  {problem}", flush=True)
    return [f"{path.stem}: {problem}" for problem in guest.problems]


def landing(page: Any, lab: Lab) -> list[str]:
    """Opens the page that `run.py lab` opens, and follows its first link."""
    page.goto(lab.url("notebooks/START.md"))
    page.wait_for_function("() => window.jupyterapp", timeout=120_000)
    page.add_script_tag(path=Path(__file__).with_name("browser.js"))
    page.evaluate("async () => { await window.jupyterapp.restored; }")
    heading = page.locator(".jp-MarkdownViewer h1")
    heading.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    page.screenshot(path=OUT / "00_0_landing.png")
    page.locator(".jp-MarkdownViewer a", has_text="00 The whole picture").first.click()
    page.locator(".jp-NotebookPanel").wait_for(timeout=60_000)
    return [] if heading.inner_text().startswith("Start here") else ["the landing page has another heading"]


def main() -> int:
    """Visits the copies that were named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", help="such as 00 03")
    numbers = parser.parse_args().numbers
    browser = find_browser()
    from playwright.sync_api import sync_playwright

    paths = [ROOT / "workshop" / "student" / path.name for path in sources() if not numbers or path.name[:2] in numbers]
    room(OUT / "room")
    with Lab(OUT / "room") as lab, sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        wrong = landing(page, lab)
        for path in paths:
            wrong += visit(page, path)
        chromium.close()
    pictures = len(list(OUT.glob("*.png")))
    print(f"{pictures} screenshots in output/browser; {len(wrong)} problem(s)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
