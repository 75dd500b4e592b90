"""A walk through the built site, on loopback: every link is followed, every file that a page fetches is there.

Run by `python3 run.py site`, after it has built output/site, and by no plain `pytest`.
"""

import hashlib
import importlib
import json
import re
import runpy
import threading
import tomllib
import urllib.request
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import unquote, urldefrag, urljoin

import pytest

import cdt_lite
from tools.copies import sources
from tools.environment import ROOT

SITE = ROOT / "output" / "site"
FETCHED = {"script", "link", "img", "iframe", "source", "video", "audio", "object", "embed"}  # and not only linked to
MATHJAX = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"  # tex-svg.js of MathJax 3.2.2
HEADINGS = re.compile(r"h([1-6])")


class Page(HTMLParser):
    """What a page links to and fetches, its anchors, the levels of its headings, pictures without a text."""

    def __init__(self, html: str):
        super().__init__()
        self.links, self.fetched, self.anchors, self.levels, self.silent = [], [], set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found.get("id"), found.get("name")}
        address = found.get("src") or found.get("href") or found.get("data")
        if address:
            (self.fetched if tag in FETCHED else self.links).append(address)
        if tag == "img" and not found.get("alt"):
            self.silent.append(address)
        if heading := HEADINGS.fullmatch(tag):
            self.levels.append(int(heading[1]))


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def base():
    """The site's address on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@cache
def get(address: str) -> bytes | None:
    """Returns what is there, None where nothing is."""
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return answer.read()
    except HTTPError:
        return None


@pytest.fixture(scope="module")
def pages(base):
    """Every page that links lead to from the first one, by address."""
    found, waiting = {}, [urljoin(base, "index.html")]
    while waiting:
        address = waiting.pop()
        if address in found or (content := get(address)) is None:
            continue
        found[address] = Page(content.decode("utf-8"))
        near = [urldefrag(urljoin(address, link)).url for link in found[address].links]
        waiting += [link for link in near if link.startswith(base) and link.endswith(".html")]
    return found


def test_no_link_is_dead(base, pages):
    dead = []
    for address, page in pages.items():
        for link in [*page.links, *page.fetched]:
            target, anchor = urldefrag(urljoin(address, link))
            if not target.startswith(base):
                continue
            there = pages.get(target)
            if get(target) is None or (anchor and there and unquote(anchor) not in there.anchors):
                dead.append(f"{address.removeprefix(base)}: {link}")
    assert not dead


def test_no_page_is_out_of_reach(base, pages):
    every = {path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts}
    assert every - {address.removeprefix(base) for address in pages} == {"search.html"}


def test_nothing_is_fetched_from_another_host(base, pages):
    outside = []
    for address, page in pages.items():
        outside += [link for link in page.fetched if not urljoin(address, link).startswith((base, "data:"))]
    for path in SITE.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        outside += re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", style)
    assert not outside


def test_every_picture_has_its_words_and_no_heading_is_skipped(pages):
    for address, page in pages.items():
        assert not page.silent, address
        jumps = [pair for pair in zip(page.levels, page.levels[1:], strict=False) if pair[1] > pair[0] + 1]
        assert page.levels[0] == 1 and not jumps, (address, jumps)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name[:2])
def test_a_notebook_has_its_outputs_stubs_and_both_files(base, pages, path):
    address = urljoin(base, f"notebooks/{path.stem}.html")
    text, page = get(address).decode("utf-8"), pages[address]
    assert "# end of solution" not in text and "instructor-" not in text
    assert "your code here" in text and "One solution" in text
    assert "output_area" in text or "cell_output" in text
    assert ("class=\"math" in text) == ("tex-svg.js" in text)
    files = [get(urljoin(address, link)) for link in page.links if link.endswith(path.name)]
    assert path.read_bytes() in files
    assert (ROOT / "workshop" / "student" / path.name).read_bytes() in files


def test_every_public_name_is_in_the_api(base, pages):
    text = "".join(get(address).decode("utf-8") for address in pages if "/api/" in address)
    shown = set(re.findall(r'id="(cdt_lite[\w.]*)"', text))
    assert {f"cdt_lite.{name}" for name in cdt_lite.__all__} <= shown
    for folder in ("data", "evaluation", "figures", "model", "teaching", "training"):
        public = set(importlib.import_module(f"cdt_lite.{folder}").__all__) - set(cdt_lite.__all__)
        missing = {name for name in public if f"cdt_lite.{folder}.{name}" not in shown}
        assert all(name.isupper() for name in missing), (folder, missing)  # a constant may have no place of its own


def test_the_scripts_for_formulas_and_for_search_are_ours(base, pages):
    assert hashlib.sha256(get(urljoin(base, "_static/tex-svg.js"))).hexdigest() == MATHJAX
    index = get(urljoin(base, "searchindex.js")).decode("utf-8")
    assert json.loads(re.search(r"\((\{.*\})\)", index, re.DOTALL)[1])["titles"]


@pytest.mark.parametrize("address", ["", "https://github.com/someone/cdt-lite"])
def test_links_to_the_repository_are_there_once_it_has_an_address(monkeypatch, address):
    read = tomllib.loads

    def with_address(text):
        settings = read(text)
        settings["tool"]["cdt-lite"]["repository"] = address
        return settings

    monkeypatch.setattr(tomllib, "loads", with_address)
    options = runpy.run_path(str(ROOT / "docs" / "conf.py"))["html_theme_options"]
    assert options.get("repository_url", "") == address
