# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests."""

import contextlib
import sys

sys.dont_write_bytecode = True

import pytest  # noqa: E402

from harness import FRONTS, Akashd, ScriptedBackend, Site  # noqa: E402


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
def make_site():
    """Site objects of the test's own."""
    made = []

    def make(front=FRONTS[0], **kw):
        made.append(Site(front, **kw))
        return made[-1]
    yield make
    for site in made:
        site.close()


@pytest.fixture(scope="module", params=FRONTS, ids=lambda f: f.name)
def front_site(request):
    """One daemon a module and front, shared by its tests."""
    site = Site(request.param)
    yield site
    site.close()


@pytest.fixture(scope="module")
def plain_site():
    """One daemon a module, plain HTTP."""
    site = Site(FRONTS[0])
    yield site
    site.close()


@pytest.fixture
def shared_site(front_site):
    """front_site with a backend that has forgotten everything."""
    front_site.fresh()
    yield front_site
    front_site.akashd.assert_clean()


@pytest.fixture
def site(plain_site):
    """plain_site with a backend that has forgotten everything."""
    plain_site.fresh()
    yield plain_site
    plain_site.akashd.assert_clean()
