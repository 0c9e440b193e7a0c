"""A page in a real browser that has no network."""

import os
import shutil

import pytest

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")


def missing(reason):
    """Skip, or fail where a browser is required."""
    if os.environ.get("TAUFLOW_REQUIRE_BROWSER") == "1":
        pytest.fail(f"TAUFLOW_REQUIRE_BROWSER=1, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright for Python is not installed: pip install 'tauflow[test]'")
    binary = os.environ.get("TAUFLOW_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not binary:
        missing("there is no chromium: apt-get install chromium, or set TAUFLOW_CHROMIUM to its path")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=binary, args=list(FLAGS))
        yield launched
        launched.close()


class Visit:
    """A page that may load nothing but itself; keeps what it tried and what it complained about."""

    def __init__(self, browser, path, width=1280):
        self.requests, self.complaints = [], []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        self.context.route("**/*", self._only_files)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready=true]")

    @staticmethod
    def _only_files(route):
        if route.request.url.startswith("file://"):
            route.continue_()
        else:
            route.abort()

    def text(self, name):
        return self.page.locator(f"#{name}").inner_text()

    def drawn(self, plot, trace, axis="y"):
        """Data of a named trace, as Plotly holds them."""
        script = "([plot, trace, axis]) => document.getElementById(plot).data.find((t) => t.name === trace)[axis]"
        return self.page.evaluate(script, [plot, trace, axis])

    def settle(self):
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
