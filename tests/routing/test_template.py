"""Real nginx, configured from a template: what is announced gets traffic, and a bad file never reaches it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.demo.processes import Program, free_ports
from kvstore.readiness.instance import Instance, encode
from tests.routing.programs import Bench, asking, required, until
from tests.routing.webs import fleet, many_asking

TEMPLATE = """\
upstream web {
{% for one in instances %}
  server {{ one.address | host }}:{{ one.address | port }} weight={{ one.weight }};
{% else %}
  server 127.0.0.1:9 down;
{% endfor %}
}
"""
CONFIG = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  include {folder}/web.conf;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; }} }}
}}
"""


class Nginx:
    def __init__(self, folder: Path, own: Bench) -> None:
        self._own = own
        self._program = required("nginx", "nginx")
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}/"
        self.output = folder / "web.conf"
        self.template = folder / "web.conf.j2"
        self.template.write_text(TEMPLATE)
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, port=port))
        self.command = f"{self._program} -c {config} -e {folder}/error.log"

    async def start(self) -> Program:
        return await self._own.programs.start("nginx", self.command.split())

    async def route(self, *options: str) -> Program:
        words = ["route", "template", str(self.template), f"--output={self.output}"]
        words += [f"--service={self._own.service}", f"--check={self.command} -t", *options]
        return await self._own.kvctl("route", *words)


@pytest.fixture
def nginx(own: Bench, tmp_path: Path) -> Nginx:
    return Nginx(tmp_path, own)


async def test_what_is_announced_gets_traffic_and_what_dies_does_not(own: Bench, nginx: Nginx) -> None:
    await own.announce("a")
    route = await nginx.route(f"--reload={nginx.command} -s reload")
    await route.wait_line("reload .* failed")  # nginx does not run yet: it is told again when it does
    await nginx.start()
    await route.wait_line("reloaded")
    async with asking(nginx.url) as answers:
        await answers.only("a")
        await own.announce("b")
        await answers.only("a", "b")
        answers.failures.clear()
        own.kill_web("a")
        await answers.only("b")
        assert answers.failures == []


async def test_a_file_that_its_check_refuses_does_not_stay(own: Bench, nginx: Nginx) -> None:
    await own.announce("a")
    route = await nginx.route()
    await route.wait_line("wrote ")
    good = nginx.output.read_text()
    assert "weight=100" in good
    await own.announce("b", "--weight=0")  # which nginx does not take
    await route.wait_line('check .* failed with status 1: .*invalid parameter "weight=0"')

    async def taken_back() -> bool:
        return nginx.output.read_text() == good

    await until("the file is as before", taken_back)
    await route.stop()
    assert sorted(each.name for each in nginx.output.parent.glob(".web.conf.*")) == []


async def test_a_check_of_the_new_file_comes_before_it_is_in_place(own: Bench, tmp_path: Path) -> None:
    output, template = tmp_path / "out.txt", tmp_path / "out.j2"
    template.write_text("{% for one in instances %}{{ one.id }} {% endfor %}{{ draining | length }}\n")
    words = ["route", "template", str(template), f"--output={output}", f"--service={own.service}"]
    route = await own.kvctl(
        "route", *words, "--check=test -s {} && ! grep b {}", f"--reload=cp {output} {output}.2"
    )
    await own.announce("a")

    async def written() -> bool:
        copy = output.with_suffix(".txt.2")
        return copy.exists() and copy.read_text() == "a 0\n"

    await until("the file and its copy are written", written)
    output.chmod(0o640)
    await own.announce("b")
    await route.wait_line("check .* failed with status 1")
    assert output.read_text() == "a 0\n"
    await (await own.kvctl("drain", "drain", f"{own.service}/a")).wait_line("drains, until")
    own.kill_web("b")

    async def drained() -> bool:
        return output.read_text() == "1\n"

    await until("the one that drains is told apart", drained)
    assert output.stat().st_mode & 0o777 == 0o640


async def test_changes_that_come_close_together_are_one(own: Bench, tmp_path: Path) -> None:
    output, template, told = tmp_path / "out.txt", tmp_path / "out.j2", tmp_path / "told"
    template.write_text("{% for one in instances %}{{ one.id }} {% endfor %}")
    words = ["route", "template", str(template), f"--output={output}", f"--service={own.service}"]
    route = await own.kvctl("route", *words, f"--reload=wc -w {output} >> {told}", "--debounce=2s")
    await route.wait_line("reloaded")
    async with Client(own.endpoint) as client:
        for number in range(5):
            one = Instance(service=own.service, id=f"i{number}", address=f"127.0.0.1:{1 + number}")
            await client.put(one.key, encode(one))

    async def all_there() -> bool:
        return output.read_text() == "i0 i1 i2 i3 i4 " and len(told.read_text().splitlines()) <= 3

    await until("five changes are one reload or two after the first", all_there)


async def test_a_rolling_replacement_fails_no_request(own: Bench, nginx: Nginx) -> None:
    route = await nginx.route(f"--reload={nginx.command} -s reload")
    await route.wait_line("wrote ")
    await nginx.start()
    await route.wait_line("reloaded")
    async with fleet(own.service, own.endpoint) as running, many_asking(nginx.url, 2) as clients:
        for number in range(4):
            await running.announce(f"a{number}")
        for one in clients:
            await one.only(*running.running, count=30)
            one.failures.clear()
        for number in range(4):
            await running.announce(f"b{number}")
            await running.replace(f"a{number}")
        for one in clients:
            await one.only(*running.running, count=30)
        assert [one.failures for one in clients if one.failures] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{% for %}", "out.j2, line 1: "),
        ("{{ nobody.knows }}", "out.j2: 'nobody' is undefined"),
        (None, "out.j2: no such file"),
    ],
)
async def test_a_bad_template_is_told_at_once(
    own: Bench, tmp_path: Path, text: str | None, told: str
) -> None:
    template = tmp_path / "out.j2"
    if text is not None:
        await asyncio.to_thread(template.write_text, text)
    words = ["route", "template", str(template), f"--output={tmp_path}/out", f"--service={own.service}"]
    route = await own.kvctl("route", *words)
    await route.wait_line(told)
    assert await route.ended() == 1
    assert not (tmp_path / "out").exists()
