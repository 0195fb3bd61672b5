# SPDX-License-Identifier: Apache-2.0
"""error_pages: what akashd itself answers with, by status."""

import pytest

from harness import FRONTS, Client, backend as answers, free_port, http_config, until

HTML = '<h1>{status}</h1><p class="{reason}">{request_id}</p>'


def by_name(value):
    return getattr(value, "name", None)


@pytest.fixture
def paged(launch, scripted, tmp_path):
    """A daemon with pages for some statuses; its only backend refuses connections."""
    def start(front=FRONTS[0], listener=None, pages=None, **top):
        (tmp_path / "errors").mkdir(exist_ok=True)
        tmp_path.chmod(0o755)
        (tmp_path / "errors/502.html").write_text(HTML)
        port = free_port()
        config = http_config(port, [f"127.0.0.1:{free_port()}"], {"retry": False}, {
            **front.listener(), **(listener or {}),
            "error_pages": pages or {"502": str(tmp_path / "errors/502.html"),
                                     "4xx": {"body": '{"error":"{reason}"}', "type": "application/json"},
                                     "404": {"body": "lost\n"}}},
            routes=[{"path": "/lost", "host": "no.test", "upstream": "site"},
                    {"path": "/own", "respond": {"status": 404, "body": "own\n"}}], **top)
        akashd = launch(config)
        akashd.front, akashd.port, akashd.page = front, port, tmp_path / "errors/502.html"
        return akashd
    return start


def ask(akashd, method="GET", target="/", fields=()):
    with akashd.front.connect(akashd.port) as client:
        return client.ask(method, target, fields)


@pytest.mark.parametrize("front", FRONTS, ids=by_name)
def test_a_page_of_a_file_with_what_is_known(paged, front):
    akashd = paged(front, {"trusted_proxies": ["127.0.0.1"]})
    answer = ask(akashd, fields=[("X-Request-ID", "abc-1")])
    assert (answer.status, answer.fields.get("content-type")) == (502, "text/html; charset=utf-8")
    assert answer.text == '<h1>502</h1><p class="connect_refused">abc-1</p>'
    assert answer.fields.get("content-length") == str(len(answer.text))
    assert answer.fields.get("x-request-id") == "abc-1" and answer.fields.get("cache-control") == "no-store"


@pytest.mark.parametrize("front", FRONTS, ids=by_name)
def test_head_has_the_length_alone(paged, front):
    akashd = paged(front)
    full, head = ask(akashd), ask(akashd, "HEAD")
    assert (head.status, head.body) == (502, b"")
    assert int(head.fields.get("content-length")) == len(full.body)


def test_a_request_id_of_the_client_is_no_markup(paged):
    akashd = paged(listener={"trusted_proxies": ["127.0.0.1"]})
    text = ask(akashd, fields=[("X-Request-ID", '<script>"x"</script>')]).text
    assert "<script" not in text and '"x"' not in text


def test_the_class_stands_in_and_the_exact_status_goes_before(paged):
    akashd = paged(listener={"limits": {"body_bytes": 10}})
    answer = ask(akashd, "POST", "/", [("Content-Length", "1000")])
    assert (answer.status, answer.text) == (413, '{"error":"body_too_large"}')
    assert answer.fields.get("content-type") == "application/json"


def test_what_comes_before_a_request_has_pages_too(paged):
    akashd = paged(listener={"timeouts": {"header": "300ms"}})
    for sent, text in [(b"nonsense\r\n\r\n", '{"error":"bad_request"}'), (b"GET / HT", '{"error":"header_timeout"}')]:
        with Client(akashd.port) as client:
            client.send(sent, "GET")
            assert client.response().text == text


def test_no_route_and_limits_have_pages(launch, scripted):
    port, backend = free_port(), scripted()
    config = http_config(port, [backend], listener={
        "rate_limit": {"name": "one", "rate": "1/h", "burst": 1}, "error_pages": {"404": {"body": "lost\n"}, "429": {"body": "slow down\n"}}})
    del config["listeners"][0]["upstream"]
    config["routes"] = [{"path": "/known", "upstream": "site"}]
    launch(config)
    with Client(port) as client:
        answer = client.ask(target="/unknown")
        assert (answer.status, answer.text) == (404, "lost\n")
        assert client.ask(target="/known").status == 200
        answer = client.ask(target="/known")
        assert (answer.status, answer.text) == (429, "slow down\n") and answer.fields.get("retry-after")


def test_answers_of_others_are_left_alone(launch, scripted):
    port, backend = free_port(), scripted(answers.fixed(b"theirs", status=503, reason="No"))
    config = http_config(port, [backend], {"retry": False}, {"error_pages": {"5xx": {"body": "page"}, "4xx": {"body": "page"}}})
    config["routes"] = [{"path": "/own", "respond": {"status": 404, "body": "own\n"}}]
    launch(config)
    with Client(port) as client:
        assert client.ask().body == b"theirs"
        assert client.ask(target="/own").text == "own\n"


@pytest.mark.parametrize("front", FRONTS, ids=by_name)
def test_a_large_page_comes_whole(paged, front):
    text = "".join(f"{n:07}\n" for n in range(8000))
    akashd = paged(front, pages={"5xx": {"body": text}})
    for _ in range(3):
        assert ask(akashd).text == text


def test_a_reload_reads_the_page_again(paged):
    akashd = paged()
    before = akashd.metrics().value("akash_config_hash")
    akashd.page.write_text("new {status}")
    akashd.reload()
    assert ask(akashd).text == "new 502"
    assert akashd.metrics().value("akash_config_hash") != before


def test_a_broken_page_leaves_the_old_configuration(paged):
    akashd = paged()
    akashd.page.unlink()
    done = akashd.reload(expect=1)
    assert "error_pages.502: cannot read" in done.stdout + done.stderr
    assert ask(akashd).status == 502
    akashd.page.write_text("x" * 65537)
    done = akashd.reload(expect=1)
    assert "longer than 65536 bytes" in done.stdout + done.stderr
    akashd.page.write_text("")
    done = akashd.reload(expect=1)
    assert f"error_pages.502: {akashd.page} is empty" in done.stdout + done.stderr
    assert ask(akashd).text.startswith("<h1>502")


def test_the_short_form_has_pages(launch):
    port = free_port()
    launch({"host": "127.0.0.1", "listen": port, "Backends": [{"address": f"127.0.0.1:{free_port()}"}],
            "error_pages": {"5xx": {"body": "short {status}"}}})
    with Client(port) as client:
        assert until(lambda: client.ask(), "an answer").text.startswith("short 50")
