# SPDX-License-Identifier: Apache-2.0
"""browser.py - headless Chromium: pages as people see them, and all that they ask for and complain of."""

import base64
import json
import os
import shutil
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from .wire import until

ARGUMENTS = ("--headless=new", "--no-first-run", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-sync",
             "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900")


class Browser:
    """One browser, with a profile of its own that ends with it."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="akashd-browser-")
        options = Options()
        options.binary_location = shutil.which("chromium")
        for argument in (*ARGUMENTS, f"--user-data-dir={self.profile}"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium's own needs another user than root
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True, "enablePage": False})
        self.driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        self.driver.set_script_timeout(20)

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    # -- pages

    def open(self, url):
        """Forget what was asked for and complained of before, and go there."""
        self.driver.get("about:blank")
        self.asked, self.complaints = [], []
        self.collect()
        self.asked, self.complaints = [], []
        self.driver.get(url)

    def leave(self):
        """The page asks for nothing any more; what it did is kept."""
        self.collect()
        self.driver.get("about:blank")

    def size(self, width, height, mobile=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, scheme="light", motion="no-preference"):
        self.cdp("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}])

    def cdp(self, command, **args):
        return self.driver.execute_cdp_cmd(command, args)

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def text(self, selector):
        return self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : null", selector)

    def wait(self, script, what, *args, deadline=20):
        """Until the script, an expression, is true; its value."""
        return until(lambda: self.run("return " + script, *args), f"{what}; the page: {self.text('body')}", deadline, 0.05)

    def press(self, *keys):
        """Keys to whatever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def screenshot(self, path, whole=True):
        """The whole page, as long as it is, or what the window shows of it."""
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    # -- what it did

    def collect(self):
        """self.asked: every URL; self.complaints: every line of the console."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
        self.complaints += [f"{e['level']}: {e['message']}" for e in self.driver.get_log("browser")]
