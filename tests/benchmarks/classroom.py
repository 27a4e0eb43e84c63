"""A class on one machine: students on a JupyterHub open and run chapter 02. What does each need, of memory and of time?

    python3 -m venv /tmp/class
    /tmp/class/bin/pip install -c constraints.txt -e '.[test]' jupyterhub
    npm install --prefix /tmp/class configurable-http-proxy
    /tmp/class/bin/python -m tests.benchmarks.classroom [--students 1 5 10] [--minutes 8] [--no-browser]
        [--proxy /tmp/class/node_modules/.bin/configurable-http-proxy] [--notebook 02_expectation_maximization.ipynb]

The environment is one of its own, since JupyterHub and the course live in it together, as they would on a server.
For each number of students, at most 30, a hub with its proxy is started on loopback, and all students log in at the
same moment, the worst case: each has a server of their own, a copy of the chapters, and a kernel in which all the
chapter's cells are run in order. One of them sits in a real Chromium where one is installed; the others speak to their
server as JupyterLab does. Kernels stay alive until all are done, and memory is read then. Everything ends by itself,
after --minutes for each number of students at the latest, and nothing is written outside a temporary folder.

Printed for each number: memory of a student in MB, as PSS (a page that n processes share counts 1/n for each: what one
more student costs) and RSS (what the student would need alone), the server's and the kernel's apart, and the kernel's
peak; seconds of processor time for a student, which other programs on the machine disturb little; and seconds on the
clock from the login to the server, to the first picture that the kernel draws, and to the last cell.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
import requests
import websocket

from tests.browser import lab

ROOT = Path(__file__).resolve().parents[2]
MOST = 30
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r} + "/{{username}}"
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = {arguments}
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = c.Spawner.http_timeout = 240
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.cleanup_servers = True
"""


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.classroom", description=__doc__.split("\n")[0])
    parser.add_argument("--students", type=int, nargs="+", default=[1, 5, 10], help=f"how many at once, at most {MOST}")
    parser.add_argument("--minutes", type=float, default=8, help="at most, for each number of students")
    parser.add_argument("--proxy", default=str(Path(sys.prefix) / "node_modules/.bin/configurable-http-proxy"))
    parser.add_argument("--notebook", default="02_expectation_maximization.ipynb")
    parser.add_argument("--no-browser", action="store_true", help="none of the students sits in a real Chromium")
    options = parser.parse_args()
    if not all(1 <= n <= MOST for n in options.students):
        parser.error(f"--students must lie between 1 and {MOST}")
    if not Path(options.proxy).exists():
        parser.error(f"there is no proxy at {options.proxy}: install it as the first lines of {__file__} say")
    seen = not options.no_browser and lab.chromium() is not None
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.notebook}; "
          f"{'one student of each class in Chromium' if seen else 'no Chromium'}\n", flush=True)
    for n in options.students:
        report(n, *hold_class(n, options.notebook, options.proxy, 60 * options.minutes, seen))


def hold_class(n, notebook, proxy, seconds, in_browser):
    """Runs one class; returns its students (with times and memory) and the PSS of hub and proxy in MB."""
    deadline = time.monotonic() + seconds
    with (tempfile.TemporaryDirectory(prefix="class-") as folder,
          hub(Path(folder), proxy) as (address, password, process)):
        students = [Student(i, address, password, notebook, deadline, in_browser and i == 0) for i in range(n)]
        for student in students:
            home = Path(folder) / "homes" / student.name
            shutil.copytree(ROOT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns("src", "solutions"))
            student.start()
        for student in students:
            student.done.wait(max(0, deadline - time.monotonic()) + 30)
        for student in students:
            if student.error is not None or not student.done.is_set():
                log = (Path(folder) / "hub.log").read_text()[-3000:]
                raise RuntimeError(f"{student.name} did not get to the end. The hub's last words:\n{log}"
                                   ) from student.error
        for student in students:
            student.measure(process)
        own = [process, *process.children()]  # the proxy is the hub's child; the students' servers are measured apart
        hub_memory = sum(pss(p) for p in own if "singleuser" not in " ".join(p.cmdline()))
        for student in students:
            student.leave.set()
        return students, hub_memory


@contextlib.contextmanager
def hub(folder, proxy):
    """A JupyterHub on loopback; yields its address, the password and its process, and leaves no process behind."""
    public, hub_port, api = free_ports(3)
    password = secrets.token_hex(16)
    arguments = ["--allow-root"] if os.getuid() == 0 else []
    arguments += ["--LabApp.expose_app_in_browser=True", "--ServerApp.jpserver_extensions=jupyterlab_jupytext=False"]
    (folder / "homes").mkdir()
    (folder / "config.py").write_text(CONFIG.format(
        public=public, hub=hub_port, api=api, proxy=proxy, password=password, homes=str(folder / "homes"),
        python=sys.executable, arguments=arguments))
    environment = os.environ | {"CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16), "PYTHONPATH": str(ROOT)}
    environment.pop("GMVAE_PROGRESS", None)  # a reader sees progress bars
    with (folder / "hub.log").open("w") as log:
        process = psutil.Popen([sys.executable, "-m", "jupyterhub", "-f", str(folder / "config.py")], cwd=folder,
                               env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                requests.get(f"http://127.0.0.1:{public}/hub/api", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"JupyterHub did not start:\n{(folder / 'hub.log').read_text()}") from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{public}", password, process
    finally:
        family = process.children(recursive=True)
        process.terminate()  # the hub ends servers and proxy
        psutil.wait_procs([process, *family], timeout=20)
        for left in [process, *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs([process, *family], timeout=10)


def free_ports(n):
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Student(threading.Thread):
    """Logs in, gets a server, opens the chapter and runs it. `times`: seconds since the login."""

    def __init__(self, number, address, password, notebook, deadline, in_browser):
        self.address, self.password, self.notebook, self.deadline = address, password, notebook, deadline
        self.in_browser, self.error, self.times, self.memory = in_browser, None, {}, {}
        self.done, self.leave = threading.Event(), threading.Event()
        super().__init__(name=f"student-{number}", daemon=True)

    def run(self):
        self.began = time.monotonic()
        try:
            (self.in_chromium if self.in_browser else self.by_api)()
        except Exception as error:  # told by the main thread
            self.error = error
        self.done.set()

    def tick(self, what):
        self.times[what] = time.monotonic() - self.began

    def left(self):
        """Seconds until the class ends."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the class is over")
        return seconds

    def by_api(self):
        hub, mine = f"{self.address}/hub", f"{self.address}/user/{self.name}"
        session = requests.Session()
        session.get(f"{hub}/login", timeout=self.left()).raise_for_status()
        form = {"username": self.name, "password": self.password, "_xsrf": session.cookies["_xsrf"]}
        session.post(f"{hub}/login", data=form, timeout=self.left(), allow_redirects=False).raise_for_status()
        xsrf = {"X-XSRFToken": session.cookies["_xsrf"]}
        reply = session.post(f"{hub}/api/users/{self.name}/tokens", json={}, headers=xsrf, timeout=self.left())
        reply.raise_for_status()
        session = requests.Session()
        session.headers["Authorization"] = f"token {reply.json()['token']}"
        session.post(f"{hub}/api/users/{self.name}/server", timeout=self.left()).raise_for_status()
        while not session.get(f"{hub}/api/users/{self.name}", timeout=self.left()).json().get("server"):
            time.sleep(0.3)
        self.tick("server")
        session.get(f"{mine}/lab/tree/notebooks/{self.notebook}", timeout=self.left()).raise_for_status()
        content = session.get(f"{mine}/api/contents/notebooks/{self.notebook}", timeout=self.left()).json()["content"]
        body = {"path": f"notebooks/{self.notebook}", "name": self.notebook, "type": "notebook",
                "kernel": {"name": content["metadata"]["kernelspec"]["name"]}}
        reply = session.post(f"{mine}/api/sessions", json=body, timeout=self.left())
        reply.raise_for_status()
        kernel = reply.json()["kernel"]["id"]
        channel = websocket.create_connection(
            f"{mine.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels", timeout=self.left(),
            header=[f"Authorization: {session.headers['Authorization']}"])
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                self.execute(channel, "".join(cell["source"]))
        self.tick("last cell")
        self.channel = channel

    def execute(self, channel, code):
        """Runs one cell to its end; notes the time of the first picture."""
        request = {"header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": self.name,
                              "session": self.name, "version": "5.3"},
                   "parent_header": {}, "metadata": {}, "channel": "shell",
                   "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                               "allow_stdin": False, "stop_on_error": True}}
        channel.send(json.dumps(request))
        replied = idle = False
        while not (replied and idle):
            channel.settimeout(self.left())
            message = parse(channel.recv())
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind in ("display_data", "execute_result") and "image/png" in content["data"]:
                self.times.setdefault("picture", time.monotonic() - self.began)
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
            replied = replied or kind == "execute_reply"
            if kind == "execute_reply" and content["status"] != "ok":
                raise RuntimeError("\n".join(content.get("traceback", ["a cell was not run"])))

    def in_chromium(self):
        with lab.browser() as chrome:
            page = chrome.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(1000 * self.left())
            page.goto(f"{self.address}/hub/login?next=/hub/spawn")
            page.fill("input[name=username]", self.name)
            page.fill("input[name=password]", self.password)
            page.click("#login_submit")
            page.wait_for_url(f"**/user/{self.name}/lab**")
            self.tick("server")
            page.goto(f"{self.address}/user/{self.name}/lab/tree/notebooks/{self.notebook}?reset")
            page.wait_for_selector(".jp-Notebook .jp-OutputArea-output img")
            self.tick("page")  # with the pictures that the notebook was saved with
            page.evaluate("""async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.context.ready;
                await panel.sessionContext.ready;
                window.jupyterapp.commands.execute("notebook:run-all-cells");
            }""")
            cells = """panel.content.widgets.filter(cell => cell.model.type === "code")"""
            page.wait_for_function(f"""() => {{
                const panel = window.jupyterapp.shell.currentWidget;
                const first = {cells}[0];
                return first.model.executionCount === 1 && first.model.outputs.length > 0
                    && first.node.querySelector(".jp-OutputArea-output img");
            }}""")
            self.tick("picture")
            page.wait_for_function(f"""() => {{
                const panel = window.jupyterapp.shell.currentWidget;
                return panel.sessionContext.session.kernel.status === "idle"
                    && {cells}.every(cell => cell.model.executionCount > 0 && cell.model.executionState === "idle");
            }}""")
            self.tick("last cell")
            output = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
            if page.locator(output).count():
                raise RuntimeError(page.locator(output).first.inner_text())
            self.done.set()
            self.leave.wait()

    def measure(self, hub):
        """Reads memory, in MB, and seconds of processor time of this student's server and kernel."""
        for process in hub.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.environ().get("JUPYTERHUB_USER") != self.name:
                    continue
                kind = "kernel" if "ipykernel" in " ".join(process.cmdline()) else "server"
                memory, times = process.memory_full_info(), process.cpu_times()
                peak = next(line.split()[1] for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                            if line.startswith("VmHWM"))
                assert kind not in self.memory, f"{self.name} has two {kind}s"
                self.memory[kind] = {"pss": memory.pss / 1e6, "rss": memory.rss / 1e6, "peak": int(peak) * 1.024e-3,
                                     "cpu": times.user + times.system}


def parse(frame):
    """The message in a frame of the kernel's channel: JSON, or, where it carries a widget's bytes, a table of n offsets
    and n parts, of which the first is JSON."""
    if isinstance(frame, str):
        return json.loads(frame)
    n, = struct.unpack_from("!i", frame)
    start, *ends = struct.unpack_from(f"!{n}i", frame, 4)
    return json.loads(frame[start:ends[0] if ends else len(frame)])


def pss(process):
    return process.memory_full_info().pss / 1e6


def report(n, students, hub_memory):
    """One class in a few lines: median over students, and the worst."""
    print(f"{n} student{'s' if n > 1 else ''} at once (hub and proxy {hub_memory:.0f} MB PSS)")
    for kind in ("server", "kernel"):
        values = {key: [s.memory[kind][key] for s in students] for key in students[0].memory[kind]}
        pss_, rss, seconds = (statistics.median(values[key]) for key in ("pss", "rss", "cpu"))
        print(f"  {kind:<7} PSS {pss_:4.0f} MB   RSS {rss:4.0f}   peak RSS {max(values['peak']):4.0f}   "
              f"processor {seconds:5.1f} s")
    both = [s.memory["server"]["pss"] + s.memory["kernel"]["pss"] for s in students]
    print(f"  a student: PSS {statistics.median(both):.0f} MB (most {max(both):.0f}); all together {sum(both):.0f} MB")
    for what in ("server", "picture", "last cell"):
        seconds = [s.times[what] for s in students]
        print(f"  login to {what:<10} median {statistics.median(seconds):5.1f} s   worst {max(seconds):5.1f} s")
    for student in students:
        if student.in_browser:
            print("  in Chromium: " + ", ".join(f"{what} {value:.1f} s" for what, value in student.times.items()))
    print(flush=True)


if __name__ == "__main__":
    main()
