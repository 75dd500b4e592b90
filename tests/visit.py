"""Works through the student copies in a real browser, as a learner does, and keeps screenshots in output/browser.

Called by `python3 run.py browser [00 03 ...]`; its name keeps it out of the unit tests. JupyterLab runs on loopback
with settings and folders of its own, on copies of the copies; the browser is the system's Chromium or Chrome
(CDT_BROWSER names another one).
"""

import importlib
import inspect
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tools.copies import NOT_YOURS, sources, tags
from tools.environment import ROOT

OUT = ROOT / "output" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
SCRIPT = Path(__file__).with_name("visit.js")
TOKEN = secrets.token_hex()  # of the server: others on this machine reach loopback too
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # else cells out of sight are not drawn
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "docmanager-extension/plugin": '{"defaultViewers": {"markdown": "Markdown Preview"}}',
}


def find_browser() -> str:
    """Returns the browser's path, or ends with one line that says what is missing."""
    named = os.environ.get("CDT_BROWSER")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), "")
    if not Path(found).is_file():
        pytest.exit(
            f"no browser found ({named or ', '.join(BROWSERS[:3])}). Install Chromium (on Debian or Ubuntu: sudo "
            "apt-get install chromium) or name a Chromium or Chrome with CDT_BROWSER",
            returncode=1,
        )
    return found


def fill_room(folder: Path) -> None:
    """Fills a fresh folder with what a learner has: student copies, the landing page, the glossary."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "workshop" / "student", folder / "workshop" / "student")
    (folder / "notebooks").mkdir()
    for name in ("START.md", "GLOSSARY.md"):
        shutil.copy(ROOT / "notebooks" / name, folder / "notebooks" / name)


def variables(home: Path) -> dict[str, str]:
    """Settings and folders of JupyterLab's own, so that nothing of the learner's is read or written."""
    for name, text in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "CDT_LITE_PROGRESS": "progress",
    }
    made = dict(os.environ)
    made.pop("CDT_STRICT", None)
    for name, folder in own.items():
        made[name] = str(home / folder)
    return made


@pytest.fixture(scope="session")
def browser():
    """The browser's path; without one, nothing begins."""
    return find_browser()


@pytest.fixture(scope="session")
def lab(browser):
    """The address of a JupyterLab on a free port of loopback."""
    fill_room(OUT / "room")
    shutil.rmtree(OUT / "jupyter", ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ip=127.0.0.1", f"--port={address.rpartition(':')[2]}", "--ServerApp.port_retries=0"),
        *(f"--ServerApp.root_dir={OUT / 'room'}", f"--IdentityProvider.token={TOKEN}"),
    ]
    with (OUT / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=variables(OUT / "jupyter"), stdout=log, stderr=log, cwd=ROOT)
        try:
            wait_for(f"{address}/api")
            yield f"{address}/lab/tree"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(address: str, seconds: float = 120) -> None:
    """Waits until a server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            if time.monotonic() > end:
                pytest.exit(f"JupyterLab did not start; its messages are in {OUT / 'server.log'}", returncode=1)
            time.sleep(0.5)


@pytest.fixture(scope="session")
def page(browser, lab):
    """A window of the browser, with JupyterLab open at the page that `run.py lab` opens."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        window = chromium.new_page(viewport={"width": 1280, "height": 900})
        window.set_default_timeout(60_000)
        window.goto(f"{lab}/notebooks/START.md?reset&token={TOKEN}")
        window.wait_for_function("() => window.jupyterapp", timeout=120_000)
        window.add_script_tag(path=SCRIPT)
        window.evaluate("async () => { await window.jupyterapp.restored; }")
        yield window
        chromium.close()


class Visit:
    """One notebook in the browser; problems are collected, not raised, so that all of them are seen."""

    def __init__(self, page, path: Path):
        self.page, self.path = page, path
        self.notebook = nbformat.read(ROOT / "workshop" / "student" / path.name, as_version=4)
        self.problems: list[str] = []

    def call(self, name: str, *arguments):
        """Calls one function of visit.js and waits for what it promises."""
        return self.page.evaluate("([name, given]) => window.cdt[name](...given)", [name, list(arguments)])

    def shot(self, what: str) -> None:
        """Keeps a picture of the window."""
        self.page.wait_for_timeout(700)  # what was scrolled to is drawn
        self.page.screenshot(path=OUT / f"{self.path.name[:2]}_{what}.png")

    def expect(self, holds: bool, told: str) -> None:
        """Notes a problem."""
        if not holds:
            self.problems.append(told)

    def index(self, tag: str) -> int:
        """The first cell with a tag."""
        return next(i for i, cell in enumerate(self.notebook.cells) if tag in tags(cell))

    def run_all(self) -> None:
        """Opens the copy, runs all cells, looks for errors."""
        wanted = len(self.notebook.cells)
        cells = self.call("open", f"workshop/student/{self.path.name}")
        self.expect(cells == wanted, f"{cells} cells on the page, {wanted} in the file")
        self.shot("1_opened")
        self.call("runAll")
        self.problems += self.call("problems")
        pictures = self.page.locator(f"{PANEL} .jp-OutputArea img")
        self.expect(pictures.count() > 0, "no picture on the page")
        for i in range(min(pictures.count(), 2)):
            pictures.nth(i).scroll_into_view_if_needed()
            self.shot(f"2_figure_{i + 1}")
        self.call("show", wanted - 1)
        self.shot("5_end")

    def answer(self, code: str, picture: str) -> str:
        """Puts an answer into the first exercise's cell and returns what `check` says."""
        below = self.index("check")
        self.call("put", self.index("exercise"), code)
        self.call("run", below)
        self.call("show", below)
        self.shot(picture)
        return self.call("text", below)

    def solve(self) -> None:
        """Answers the first exercise wrongly in two ways, then rightly, and reads what `check` says each time."""
        at, below = self.index("exercise"), self.index("check")
        number, stub = str(self.notebook.cells[at].metadata["exercise"]), self.notebook.cells[at].source
        module, wrong = wrong_answers(number)
        function = self.notebook.cells[below].source.split(f'check("{number}", ')[1].split(")")[0]
        self.expect("not attempted yet" in self.call("text", below), f"{number}: the stub is not named as untouched")
        for k, (name, hint) in enumerate(wrong.items(), 1):
            said = self.answer(f"{stub}\n\n\n{inspect.getsource(module)}\n\n{function} = {name}", f"3_wrong_{k}")
            self.expect(hint in " ".join(said.split()), f"{number}: {name} did not get the hint {hint!r}")
        solved = nbformat.read(self.path, as_version=4)
        right = next(cell.source for cell in solved.cells if cell.id == self.notebook.cells[at].id)
        self.expect(NOT_YOURS in stub and NOT_YOURS not in right, f"{number}: stub and answer are mixed up")
        said = self.answer(right, "4_right")
        self.expect("Well done." in said, f"{number}: the right answer was not accepted")


def wrong_answers(number: str):
    """The module of an exercise's answers, and two wrong ones with the hints that they must get."""
    module = importlib.import_module(f"exercises.ex_{number.replace('.', '_')}")
    named = {name: inspect.getdoc(value) for name, value in vars(module).items() if name.startswith("wrong_")}
    return module, dict(list(named.items())[:2])


def test_the_landing_page_opens_and_its_first_link_leads_to_a_notebook(page):
    heading = page.locator(".jp-MarkdownViewer h1")
    heading.wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=OUT / "00_0_landing.png")
    assert heading.inner_text().startswith("Start here")
    page.locator(".jp-MarkdownViewer a", has_text="00 The whole picture").first.click()
    page.locator(".jp-NotebookPanel").wait_for()


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_a_learner_gets_through(page, path):
    guest = Visit(page, path)
    try:
        guest.run_all()
        guest.solve()
        guest.call("close")
    except Exception:
        guest.shot("9_stopped")
        raise
    assert not guest.problems, "\n".join(guest.problems)
