# SPDX-License-Identifier: Apache-2.0
"""The status page, in Chromium: what it shows and how soon, what it asks for, who can read it.

AKASHD_SCREENSHOTS names a folder for the pictures; else they go where pytest puts temporary files.
"""

import http.server
import json
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from harness import Akashd, Client, ScriptedBackend, free_port, http_config, until
from harness.backend import fixed
from harness.browser import Browser
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.paper  # the page is the same whatever the daemon was built with

CHECK = {"health_check": {"type": "http", "path": "/health", "interval": "200ms", "timeout": "1s", "rise": 1, "fall": 1}}
SHOWN_S = 3  # from the daemon's own line in the log to the page
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><b class=hostile>&amp;"


@pytest.fixture(scope="module")
def chromium():
    made = Browser()
    yield made
    made.close()


@pytest.fixture
def browser(chromium, launch):
    """In a plain light window; afterwards held to having asked nobody else and complained of nothing.

    It leaves the page before the daemons of launch end: that the page misses them then is no complaint.
    """
    chromium.size(1280, 900)
    chromium.prefer("light")
    chromium.asked, chromium.complaints = [], []
    yield chromium
    chromium.collect()
    origins = {re.match(r"\w+://[^/]*|\w+:", url).group() for url in chromium.asked}
    assert {o for o in origins if o not in ("about:", "data:")} <= {chromium.origin}, chromium.asked
    assert chromium.complaints == []
    chromium.open("about:blank")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    chosen = os.environ.get("AKASHD_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def served():
    """A daemon with three backends that are checked, and an upstream that nobody checks."""
    backends = [ScriptedBackend() for _ in range(3)]
    for backend in backends:
        backend.always(fixed(b"ok"))
    port = free_port()
    config = http_config(port, [{"id": f"app-{i}", "address": b.address} for i, b in enumerate(backends)], CHECK, workers=2,
                         upstreams={"static": {"backends": [{"address": backends[0].address}],
                                               "health_check": False}})
    akashd = Akashd(config)
    akashd.port, akashd.backends = port, backends
    yield akashd
    akashd.stop()
    for backend in backends:
        backend.close()


def visit(browser, akashd):
    browser.origin = f"http://127.0.0.1:{akashd.metrics_port}"
    browser.open(browser.origin + "/")
    browser.wait("status !== null && document.querySelector('.group tbody tr') !== null", "the first answer")


def ask(akashd, n):
    with Client(akashd.port) as client:
        for _ in range(n):
            assert client.ask().status == 200


ROW = """[...document.querySelectorAll('.group tbody tr')].filter(tr => tr.cells[0].firstChild.textContent === arguments[0])
    .map(tr => [...tr.cells].map(c => c.innerText.trim()))[0]"""


def row(browser, backend):
    """{column: text} of a backend."""
    texts = browser.run("return " + ROW, backend)
    names = browser.run("return [...document.querySelectorAll('.group thead th')].map(h => h.textContent)")
    return dict(zip(names, texts))


def wait_row(browser, backend, word):
    browser.wait(f"(({ROW}) || [])[1] === arguments[1]", f"{backend} to be {word}", backend, word)


# -- what it is made of


def test_page_comes_with_a_policy_that_admits_only_itself(served):
    with Client(served.metrics_port) as client:
        answer = client.ask("GET", "/")
    assert answer.status == 200
    assert answer.fields.get("Content-Type") == "text/html; charset=utf-8"
    assert answer.fields.get("X-Content-Type-Options") == "nosniff"
    assert answer.fields.get("Referrer-Policy") == "no-referrer"
    assert answer.fields.get("Cache-Control") == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in answer.fields.get("Content-Security-Policy").split(";"))
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy.pop("style-src"))
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy.pop("script-src"))
    assert policy == {
        "default-src": "'none'", "connect-src": "'self'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
        "frame-ancestors": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'"}
    page = answer.body.decode()
    assert not re.findall(r"(?:src|href|action)=\"(?!data:|#)", page)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b| style=| on\w+=", page)
    with Client(served.metrics_port) as client:
        head = client.ask("HEAD", "/")
    assert head.body == b"" and head.fields.get("Content-Length") == str(len(answer.body))


def test_page_is_for_loopback_and_the_networks_that_are_allowed(launch, scripted, own_address):
    for allow, expected in (([], 403), ([own_address + "/32"], 200)):
        akashd = launch(http_config(free_port(), [scripted()], workers=1), start=False)
        akashd.config["metrics"] = {"address": f"0.0.0.0:{akashd.metrics_port}", "allow": allow}
        akashd.write(akashd.config)
        akashd.start()
        for path in ("/", "/status.json"):
            with Client(akashd.metrics_port, host=own_address) as client:
                assert client.ask("GET", path).status == expected, (path, allow)


@pytest.fixture
def own_address():
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing
        return sock.getsockname()[0]


# -- what it shows


def test_backend_going_down_and_coming_back_is_seen_without_a_reload(browser, served, pictures):
    visit(browser, served)
    wait_row(browser, "app-1", "up")
    browser.wait("document.getElementById('overall').textContent === 'all well'", "all to be well")
    browser.screenshot(pictures / "light.png")
    browser.run("window.sameDocument = true")
    shown = []
    for word, change, pattern in (("down", served.backends[1].refuse, "up -> down"),
                                  ("up", served.backends[1].accept_again, "down -> up")):
        seen = len(served.log)
        change()
        served.wait_log(rf"backend site/app-1 {pattern}", since=seen)
        began = time.monotonic()
        wait_row(browser, "app-1", word)
        shown.append(time.monotonic() - began)
        told = row(browser, "app-1")
        if word == "down":
            assert told["Why"] == "down: connect refused"
            assert re.match(r"\d\d:\d\d:\d\d, \d+ s$", told["Since"])
            assert "backend site/app-1: down: connect refused" in browser.text("#attention")
            assert browser.run("return document.title").startswith("(1) akashd")
            assert "backend site/app-1" in browser.run("return document.getElementById('news').textContent")
            browser.screenshot(pictures / "light-down.png")
            browser.prefer("dark")
            browser.screenshot(pictures / "dark-down.png")
            browser.prefer("light")
    assert min(shown) < SHOWN_S and max(shown) < 3 * SHOWN_S, shown  # a pause of the machine may have met one
    browser.wait("document.getElementById('news').textContent === 'backend site/app-1 is up.'", "the news")
    assert browser.run("return window.sameDocument") is True


def test_traffic_is_counted_and_drawn(browser, served):
    visit(browser, served)
    browser.wait("charts !== null", "the charts")
    stop = threading.Event()

    def load():
        while not stop.is_set():
            ask(served, 10)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        browser.wait("charts[0].points.filter(p => p.values[0] > 0).length > 2", "points of traffic")
        browser.wait("[...document.querySelectorAll('figure dd')].every(dd => /^[\\d.,k<]+$/.test(dd.textContent))", "numbers")
        browser.wait("document.querySelectorAll('.plot .line.s0[d]:not([d=\"\"])').length === 3", "three charts with lines")
        browser.wait(f"(({ROW}) || [])[11] > 0", "a p95", "app-0")
        assert float(row(browser, "app-0")["Requests/s"].replace(",", "")) > 0
        label = browser.run("return document.querySelectorAll('.plot')[2].getAttribute('aria-label')")
        assert re.match(r"Time to answer \(ms\) of the last five minutes: p50 now [\d.,]+, from", label)
    finally:
        stop.set()
        thread.join()


def test_rates_are_growth_by_the_servers_clock(browser, served):
    visit(browser, served)
    rates = browser.run("""
        const t = new Track();
        t.add(1000, [0], [0, 0, 0]);
        t.add(2000, [10], [0, 10, 0]);
        t.add(2000, [99], [0, 99, 0]);       // the same text once more
        t.add(4000, [40], [0, 40, 0]);
        const before = [t.perSecond(0), t.perSecond(0, 2), ...t.quantiles([1000, 3000], [0.5, 1])];
        t.add(5000, [7], [0, 0, 7]);         // began anew
        return [...before, t.perSecond(0, 2), new Track().perSecond(0), t.quantiles([1000, 3000], [0.5])[0]];
    """)
    assert rates == pytest.approx([40 / 3, 15, 2, 3, 7, 0, 3])


def test_operator_and_reloads_are_shown_with_their_words(browser, served):
    visit(browser, served)
    good = served.config
    assert served.ctl("drain", "site/app-2").returncode == 0
    try:
        served.write(served.file.read_text().replace('"drain_timeout"', json.dumps(HOSTILE) + ': 1, "drain_timeout"'))
        assert served.ctl("reload").returncode == 1
        wait_row(browser, "app-2", "drain")
        assert row(browser, "app-2")["Why"] == "drain, says the operator; the file: ready"
        assert "backend site/app-2: state drain; the file: ready" in browser.text("#said")
        browser.wait("document.querySelector('#reloads tbody tr').cells[1].innerText === 'refused'", "the refusal")
        told = browser.text("#reloads tbody tr")
        assert "akashctl" in told and "unknown key" in told and "<img src=x" in told
        assert "last reload: refused:" in browser.text("#attention")
        assert browser.run("return document.querySelectorAll('main img, .hostile').length") == 0
    finally:
        served.write(good)
        assert served.ctl("reload").returncode == 0
        assert served.ctl("ready", "site/app-2").returncode == 0
    wait_row(browser, "app-2", "up")
    browser.wait("document.querySelector('#reloads tbody tr').cells[1].innerText === 'in force'", "a good reload")
    assert "refused" not in browser.text("#attention")
    assert browser.run("return document.getElementById('said-part').hidden") is True


def test_processes_and_listeners_are_shown(browser, served):
    visit(browser, served)
    text = browser.text("#workers")
    for process in (*served.workers().values(), served.monitor()):
        assert str(process.pid) in text
    assert "worker 0" in text and "worker 1" in text and "serving" in text
    assert f"127.0.0.1:{served.port}" in browser.text("#listeners")
    victim = served.workers()[0]
    victim.kill()
    browser.wait(f"!document.getElementById('workers').innerText.includes('{victim.pid}') && "
                 "document.getElementById('facts').textContent.includes('2 workers (1 restart)')", "the successor")


# -- what comes from others stays text


class StandIn:
    """Serves the page as the daemon did, its policy included, and a status of the test's own."""

    def __init__(self, akashd):
        with Client(akashd.metrics_port) as client:
            self.page = client.ask("GET", "/")
        self.status = json.loads(akashd.get("/status.json")[1])
        self.began = time.monotonic()
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                is_page = self.path == "/"
                body = stand_in.page.body if is_page else stand_in.text()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8" if is_page else "application/json")
                if is_page:
                    self.send_header("Content-Security-Policy", stand_in.page.fields.get("Content-Security-Policy"))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass
        self.handler = Handler
        self.listen(0)

    def listen(self, port):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self.handler)
        self.metrics_port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self):
        """The status, with clocks that go on."""
        gone = int((time.monotonic() - self.began) * 1000)
        moved = {k: self.status[k] + gone for k in ("time_ms", "clock_ms")}
        return json.dumps({**self.status, **moved}).encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stand_in(browser, served):
    made = StandIn(served)
    yield made
    browser.leave()
    made.close()


def poisoned(value, key=""):
    """Every text in it, followed by what a browser would take for more than text if it could."""
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_text_of_others_stays_text(browser, stand_in):
    status = stand_in.status
    status["reload"] |= {"successful": False, "error": "no"}
    status["upstreams"][0]["backends"][0] |= {"usable": False, "why": "down: ", "reason": "no_backend", "breaker": "open",
                                              "operator": {"state": {"file": "ready", "operator": "maint"}}, "operator_since": 1}
    status["rate_limits"] = [{"name": "each", "limited": 3}]
    stand_in.status = poisoned(status)
    stand_in.status["failures"] = {"denied" + HOSTILE: 1}
    visit(browser, stand_in)
    for place in ("#attention", "#said", "#groups", "#listeners", "#workers", "#reloads", "#reasons", "#facts"):
        assert "<img src=x onerror" in browser.text(place), place
    assert browser.run("return document.querySelectorAll('main img, .hostile, [onerror]').length") == 0
    assert browser.run("return document.title").startswith("(")


# -- whom it serves


CONTRAST = r"""
const parse = c => { const n = c.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                     return .2126 * r + .7152 * g + .0722 * b; };
const ground = e => { const way = []; for (; e; e = e.parentElement) way.push(parse(getComputedStyle(e).backgroundColor));
                      return way.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]); };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const faults = [], seen = new Set();
let texts = 0;
const judge = (what, color, e, least) => {
  const found = ratio(over(parse(color), ground(e)), ground(e));
  if (found < least) faults.push(`${what}: ${found.toFixed(2)}`);
};
for (const e of document.querySelectorAll('body, body *')) {
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  if (!box.width || style.visibility === 'hidden' || e.closest('.unseen')) continue;
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (own && !['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(e.tagName)) {
    texts += 1;
    judge(`${e.tagName} "${e.textContent.slice(0, 30)}"`, e.namespaceURI.includes('svg') ? style.fill : style.color, e, 4.5);
  }
  if (e.matches('.tag')) judge(`shape of ${e.textContent}`, getComputedStyle(e, '::before').color, e, 4.5);
  if (e.matches('.line')) judge('line', style.stroke, e.closest('figure, td'), 3);
  if (e.matches('input[type=search]')) {
    judge('placeholder', getComputedStyle(e, '::placeholder').color, e, 4.5);
    judge('border', style.borderTopColor, e.parentElement, 3);
  }
  if (e.matches('button')) judge('border of button', style.borderTopColor, e.parentElement, 3);
}
return [texts, faults];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in(browser, stand_in, scheme):
    first, second, third = stand_in.status["upstreams"][0]["backends"]
    first |= {"health": "down", "usable": False, "why": "down: connect refused", "reason": "no_backend"}
    second |= {"breaker": "half-open", "state": "drain", "operator": {"state": {"file": "ready", "operator": "drain"}},
               "operator_since": 1}
    third |= {"health": "unknown"}
    stand_in.status["reload"] |= {"successful": False, "error": "akashd.json:1:1: wrong"}
    browser.prefer(scheme)
    visit(browser, stand_in)
    browser.wait("charts && charts[0].points.length > 1", "a line")
    grounds = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", grounds)[:3])) < 200) == (scheme == "dark")
    browser.run("document.getElementById('lost').hidden = false; document.getElementById('lost').textContent = 'No answer'")
    texts, faults = browser.run(CONTRAST)
    assert texts > 100
    assert faults == []


def tree(browser):
    """[(role, name)] as a screen reader has them."""
    nodes = browser.cdp("Accessibility.getFullAXTree")["nodes"]
    return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_screen_reader_finds_its_way(browser, served, width):
    browser.size(width, 900, mobile=width < 500)
    visit(browser, served)
    assert browser.run("return document.documentElement.lang") == "en"
    assert browser.run("return document.title").startswith("akashd 127.0.0.1")
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    roles = tree(browser)
    names = {role: [name for r, name in roles if r == role] for role, _ in roles}
    assert names["main"] and names["banner"]
    assert names["searchbox"] == ["Filter"] and names["checkbox"] == ["Only problems"] and names["button"] == ["Pause"]
    assert "Backends of upstream site" in names["table"] and len(names["table"]) >= 5
    assert {"Backend", "State", "Why", "Since"} <= set(names["columnheader"])
    assert any(name.startswith("app-0") for name in names["rowheader"])
    assert "up" in names["cell"]
    assert all(names["image"] if "image" in names else names["img"])
    for role in ("button", "link", "searchbox", "checkbox", "region", "table", "heading"):
        assert all(names.get(role, [])), role
    live = browser.run("return [...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map(e => e.id)")
    assert sorted(live) == ["lost", "news"]
    assert browser.text("#news") == ""  # nothing has changed, so nothing is said
    assert browser.run("return [...document.querySelectorAll('[id]')].length === new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")
    assert browser.run("return document.querySelector('meta[name=viewport]').content") == "width=device-width, initial-scale=1"


FOCUS = """const e = document.activeElement, s = getComputedStyle(e);
    return [e.id || e.tagName + '.' + e.className, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]"""


def test_keyboard_is_enough(browser, served):
    visit(browser, served)
    way = []
    for _ in range(6):
        browser.press(Keys.TAB)
        name, is_visible = browser.run(FOCUS)
        assert is_visible, name
        way.append(name)
    assert way == ["A.skip", "pause", "filter", "only", "SUMMARY.", "SUMMARY."]
    browser.press(Keys.ENTER)
    assert browser.run("return [...document.querySelectorAll('.group')].map(g => g.open)") == [True, False]
    browser.press(Keys.ENTER, "/")
    assert browser.run(FOCUS)[0] == "filter"
    browser.press("app-1")
    assert browser.run("return document.querySelectorAll('.group tbody tr').length") == 1
    assert "1 shown" in browser.text("#shown")
    browser.press(Keys.ESCAPE)
    assert browser.run("return document.querySelectorAll('.group tbody tr').length") == 4
    browser.press(Keys.TAB, Keys.SPACE)
    assert browser.text("#groups") == "No problems: every backend can be chosen."
    browser.press(Keys.SPACE)
    browser.run("document.getElementById('pause').focus()")
    browser.press(Keys.ENTER)
    assert browser.run("return document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    before = browser.run("return status.clock_ms")
    browser.press(Keys.ENTER)
    browser.wait("status.clock_ms > arguments[0]", "another answer", before)


def test_who_wants_no_motion_has_none(browser, served):
    for motion, has_some in (("no-preference", True), ("reduce", False)):
        browser.prefer(motion=motion)
        visit(browser, served)
        spans = browser.run("return [...document.querySelectorAll('*')].map(e => getComputedStyle(e))"
                            ".map(s => s.transitionDuration + ' ' + s.animationDuration)")
        assert any(re.search(r"[1-9]", s) for s in spans) == has_some


def test_a_phone_need_not_scroll_sideways(browser, stand_in, pictures):
    status = stand_in.status
    status["upstreams"][0]["name"] = "u" * 150
    status["upstreams"][0]["backends"][0] |= {"id": "b" * 150, "usable": False, "health": "down", "reason": "no_backend",
                                              "why": "down: " + "x" * 127}
    status["listeners"][0] |= {"name": "l" * 150, "addresses": ["[2001:db8:85a3:8d3:1319:8a2e:370:7348]:65535"] * 4}
    status["reload"] |= {"successful": False, "error": "/very/long/" + "path/" * 60 + "akashd.json:1:1: wrong"}
    status["failures"] = {"connect_timeout": 123456789}
    browser.size(390, 844, mobile=True)
    visit(browser, stand_in)
    browser.wait("charts && charts[0].points.length > 1", "a line")
    wide = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.unseen, thead, svg') 
        && (e.getBoundingClientRect().right > innerWidth + 1 || (e.scrollWidth > e.clientWidth + 1 && e.clientWidth)))
        .map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))"""
    assert browser.run("return " + wide) == []
    assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    assert browser.run("return Math.min(...[...document.querySelectorAll('button, summary, .check')].map(e => e.getBoundingClientRect().height))") >= 24
    browser.prefer("dark")
    browser.screenshot(pictures / "phone.png")


# -- how it behaves


def test_hundreds_of_backends_stay_usable(browser, launch, scripted, pictures):
    good = scripted()
    good.always(fixed(b"ok"))
    dead = [f"127.0.{i // 250 + 1}.{i % 250 + 1}:9" for i in range(3)]
    many = [{"id": f"node-{i:03}", "address": good.address} for i in range(297)]
    slow = {"health_check": {"type": "tcp", "interval": "5s", "timeout": "5s", "fall": 1}}
    akashd = launch(http_config(free_port(), [*many, *({"id": f"dead-{i}", "address": a} for i, a in enumerate(dead))], slow))
    visit(browser, akashd)
    browser.wait("document.querySelectorAll('.group tbody tr').length === 300", "300 rows")
    browser.wait("document.getElementById('shown').textContent === '297 of 300 backends usable'", "the dead to be found")
    assert browser.run("return document.getElementById('overall').textContent") == "3 problems"
    took = browser.run("return [...Array(5)].map(() => { const began = performance.now(); draw(); return performance.now() - began; })")
    assert min(took) < 500, took  # the rest may have waited for a processor
    browser.screenshot(pictures / "many.png", whole=False)
    browser.run("document.getElementById('only').click()")
    shown = "[...document.querySelectorAll('.group tbody tr')].map(tr => tr.cells[0].firstChild.textContent)"
    assert browser.run("return " + shown) == ["dead-0", "dead-1", "dead-2"]
    browser.run("document.getElementById('only').click()")
    browser.press("/")
    browser.press("node-01 up")
    assert browser.run("return " + shown) == [f"node-01{i}" for i in range(10)]


def test_thousands_are_drawn_in_part_with_problems_first(browser, stand_in):
    group = stand_in.status["upstreams"][0]
    model = group["backends"][0]
    group["backends"] = [{**model, "id": f"n{i}"} for i in range(5000)]
    group["backends"][4999] |= {"health": "down", "usable": False, "why": "down: x", "reason": "no_backend"}
    visit(browser, stand_in)
    ids = browser.run("return [...document.querySelectorAll('.group tbody tr')].map(tr => tr.cells[0].firstChild.textContent)")
    assert len(ids) == 400 and "n4999" in ids and "n0" in ids
    assert "400 of 5,001 shown, problems first" in browser.text("#shown")


def test_lost_connection_is_said_and_mended(browser, stand_in, pictures):
    visit(browser, stand_in)
    stand_in.close()
    browser.wait("!document.getElementById('lost').hidden", "the page to miss it")
    assert re.match(r"No answer from akashd since \d\d:\d\d:\d\d \(unreachable\)", browser.text("#lost"))
    assert browser.text("#overall") == "no connection"
    browser.screenshot(pictures / "lost.png")
    stand_in.listen(stand_in.metrics_port)
    browser.wait("document.getElementById('lost').hidden && document.getElementById('overall').textContent === 'all well'",
                 "the page to find it again", deadline=40)
    browser.collect()
    assert all(re.search("ERR_CONNECTION_(REFUSED|RESET)", c) for c in browser.complaints), browser.complaints
    browser.complaints = []


def answers(browser):
    """How often /status.json was asked for, as the page's own clock has it."""
    return browser.run("return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/status.json')).length")


def test_it_asks_about_once_a_second_and_rests_when_nobody_looks(browser, served):
    visit(browser, served)
    times = browser.wait("(e => e.length > 2 && e.map(x => x.startTime))(performance.getEntriesByType('resource')"
                         ".filter(e => e.name.endsWith('/status.json')))", "three questions")
    assert min(b - a for a, b in zip(times, times[1:])) > 950
    hidden = """Object.defineProperty(document, 'hidden', {configurable: true, get: () => arguments_hidden});
                document.dispatchEvent(new Event('visibilitychange'));"""
    browser.run("window.arguments_hidden = true;" + hidden)
    browser.wait("!isAsking", "the last question to be answered")
    browser.run("plan(POLL_MS)")
    before = answers(browser)
    browser.run("window.begun = performance.now()")
    browser.wait("performance.now() - begun > 1700", "more than a second")
    assert answers(browser) == before
    browser.run("window.arguments_hidden = false;" + hidden)
    until(lambda: answers(browser) > before, "a question once somebody looks", 20)
