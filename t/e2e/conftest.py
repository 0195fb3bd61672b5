# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests."""

import contextlib
import sys

sys.dont_write_bytecode = True

import pytest  # noqa: E402

from harness import FRONTS, PLAIN_WAYS, WAYS, Akashd, ScriptedBackend, Site, Way  # noqa: E402


def pytest_collection_modifyitems(config, items):
    """Leave out what a test says of HTTP/1 where no HTTP/1 is spoken."""
    config.hook.pytest_deselected(items=[item for item in items if not is_carried(item)])
    items[:] = [item for item in items if is_carried(item)]


def is_carried(item):
    params = item.callspec.params.values() if hasattr(item, "callspec") else []
    ways = [param for param in params if isinstance(param, Way)]
    return all(way.carries({mark.name for mark in item.iter_markers()}) for way in ways)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the log of every running daemon below a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for daemon in Akashd.running:
            report.sections.append(("akashd log", "\n".join(daemon.log[-60:])))


@pytest.fixture
def scripted():
    """Make scripted backends that end with the test."""
    made = []

    def make(*args, **kw):
        made.append(ScriptedBackend(*args, **kw))
        return made[-1]
    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def launch():
    """Start daemons that are stopped, and held to a clean end, with the test."""
    made = []

    def start(config, **kw):
        made.append(Akashd(config, **kw))
        return made[-1]
    yield start
    with contextlib.ExitStack() as ends:
        for daemon in made:
            if daemon in Akashd.running:
                ends.callback(daemon.stop)


@pytest.fixture
def build_site():
    """Site objects of the test's own."""
    made = []

    def make(front=FRONTS[0], **kw):
        made.append(Site(front, **kw))
        return made[-1]
    yield make
    for site in made:
        site.close()


@pytest.fixture
def make_site(build_site):
    """build_site, for a module to give another meaning to."""
    return build_site


@pytest.fixture(params=PLAIN_WAYS, ids=lambda way: way.name)
def make_any_site(request, build_site):
    """build_site, over HTTP/1 on both sides and over HTTP/2 on both, in cleartext."""
    way = request.param
    return lambda **kw: build_site(**{"front": way.front, "back": way.back, **kw})


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.name)
def way_site(request):
    """One daemon a module and way, shared by its tests."""
    site = Site(request.param.front, request.param.back)
    yield site
    site.close()


@pytest.fixture(scope="module")
def plain_site():
    """One daemon a module, plain HTTP."""
    site = Site(FRONTS[0])
    yield site
    site.close()


@pytest.fixture
def shared_site(way_site):
    """way_site with a backend that has forgotten everything."""
    way_site.fresh()
    yield way_site
    way_site.akashd.assert_clean()


@pytest.fixture
def site(plain_site):
    """plain_site with a backend that has forgotten everything."""
    plain_site.fresh()
    yield plain_site
    plain_site.akashd.assert_clean()
