"""Hosts in network namespaces: what they hear of each other, how fast, and what is lost."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import wait_until

from perception.nodes.network import Link, Network, obstacle

if reason := obstacle():
    pytest.skip(reason, allow_module_level=True)

RECEIVE = """
import socket, sys
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
receiver.bind(("", 5000))
receiver.settimeout(float(sys.argv[1]))
print("ready", flush=True)
count = 0
try:
    while receiver.recv(2000) != b"end":
        count += 1
except TimeoutError:
    pass
print(count)
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network(["base", "pi_1"]) as network:
        yield network


def received(network: Network, count: int = 200, seconds: float = 1.0, pause: float = 0.0005) -> int:
    """How many of so many datagrams of 1000 bytes from pi_1 arrive at base, until none comes for so long."""
    receive = [sys.executable, "-c", RECEIVE, str(seconds)]
    receiver = subprocess.Popen(network.command("base", receive), stdout=subprocess.PIPE, text=True)
    assert receiver.stdout and receiver.stdout.readline() == "ready\n"
    with network.inside("pi_1"):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for _ in range(count):
            sender.sendto(b"x" * 1000, (network.address("base"), 5000))
            time.sleep(pause)
    return int(receiver.communicate()[0])


def test_links_count_what_goes_over_them(network: Network) -> None:
    before = network.bytes("pi_1")[1], network.bytes("base")[0]
    assert received(network) == 200
    sent, came = network.bytes("pi_1")[1] - before[0], network.bytes("base")[0] - before[1]
    assert 200_000 < sent < 300_000 and 200_000 < came < 300_000


def test_a_cut_link_can_be_mended(network: Network) -> None:
    network.cut("pi_1")
    assert received(network, seconds=0.3) == 0
    network.mend("pi_1")
    wait_until(lambda: received(network, 1, 0.3), 30, "the neighbours to find each other again")
    assert received(network) == 200


def test_a_share_is_lost(network: Network) -> None:
    network.lose(0.2)
    assert 600 < received(network, 1000) < 960
    network.lose(0.0)
    assert received(network) == 200


def test_this_process_comes_home(network: Network) -> None:
    with network.inside("base"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind((network.address("base"), 0))
    with pytest.raises(OSError, match="assign"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((network.address("base"), 0))


def test_a_link_has_its_rate() -> None:
    with Network(["base", "pi_1"], Link(mbit=5.0)) as network:
        received(network, 1)  # neighbours know each other
        before, start = network.bytes("base")[0], time.monotonic()
        assert received(network, 500, 0.5, pause=0.0) == 500  # the sender is held up
        seconds, sent = time.monotonic() - start, network.bytes("base")[0] - before
        assert sent > 500_000 and seconds > 8 * sent / 5e6 - 0.1  # the first 32 kB go at once


def test_nothing_is_left_behind() -> None:
    with Network(["base"]) as network:
        names = [network.namespace(host) for host in ("base", "switch")]
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in names if name in listed]


def test_what_fails_is_said_in_the_systems_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.nodes.network.SUBNET", "10.777.0")
    network = Network(["base"])
    with pytest.raises(RuntimeError, match=r"`ip netns exec .* ip address add 10\.777\..*` failed: .+"), network:
        pass
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert network.namespace("base") not in listed


def test_a_kernel_without_netem_says_so() -> None:
    delayed = Link(delay_ms=20.0)
    if reason := obstacle(delayed):
        assert "cannot have a delay, since its kernel has no netem" in reason
        return
    with Network(["base", "pi_1"], delayed) as network:
        assert received(network, 20) == 20
