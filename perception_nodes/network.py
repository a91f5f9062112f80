"""Several hosts in one machine: network namespaces, each with a link and an address of its own, joined by a bridge.

Needs root and the commands `ip`, `tc` and `nft`. Names of namespaces begin with the number of this process, so
that several networks can stand side by side.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from perception.nodes.environment import PROFILE_VARIABLES
from perception.tasks.resources import share

SUBNET = "10.77.0"
SWITCH = "switch"
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
BURST = "32kb"
"""What a link sends at once; less than this holds no datagram of 64 kB's fragments together at low rates."""
QUEUE_MS = 200
"""How long a frame waits in a link's queue at most."""
DISCOVERY = ("multicast", "peers", "server")
SERVER_PORT = 11811


@dataclass(frozen=True)
class Link:
    """What every host's link is like."""

    mbit: float = 0.0
    """In each direction; 0: as fast as the machine."""
    delay_ms: float = 0.0
    """In each direction. Only where the kernel has netem."""


PLAIN = Link()
_numbers = itertools.count()
"""Of the networks of this process."""


def obstacle(link: Link = PLAIN) -> str:
    """Why this machine may not make such a network; empty if it may."""
    if missing := [name for name in ("ip", "tc", "nft") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed (apt install {'nftables' if missing[0] == 'nft' else 'iproute2'})"
    trial = f"p{os.getpid()}_trial"
    try:
        _run("ip", "netns", "add", trial)
    except RuntimeError as error:
        return f"this machine may not make network namespaces: {error}"
    try:
        if link.delay_ms:
            _run("ip", "netns", "exec", trial, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    except RuntimeError as error:
        return f"this machine's links cannot have a delay, since its kernel has no netem: {error}"
    finally:
        _run("ip", "netns", "del", trial)
    return ""


class Network:
    """Hosts and their links, for the length of a `with`.

    Raises:
        RuntimeError: a command of the system failed; the message has its words.
    """

    def __init__(self, hosts: Sequence[str], link: Link = PLAIN) -> None:
        self.hosts, self._link = tuple(hosts), link
        self._prefix = f"p{os.getpid()}n{next(_numbers)}"

    def __enter__(self) -> Network:
        try:
            for name in (SWITCH, *self.hosts):
                _run("ip", "netns", "add", self.namespace(name))
                self._inside(name, "ip", "link", "set", "lo", "up")
            self._inside(SWITCH, *["ip", "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0"])
            self._inside(SWITCH, *["ip", "link", "set", "bridge", "up"])
            for host in self.hosts:
                self._connect(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove all. What still runs there keeps its namespace alive until it ends."""
        for name in (*self.hosts, SWITCH):
            if (NAMESPACES / self.namespace(name)).exists():
                _run("ip", "netns", "del", self.namespace(name))

    def namespace(self, host: str) -> str:
        """As `ip netns` knows it."""
        return f"{self._prefix}_{host if host == SWITCH else self.hosts.index(host)}"

    def address(self, host: str) -> str:
        """IPv4."""
        return f"{SUBNET}.{1 + self.hosts.index(host)}"

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """What runs a command on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *words]

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread, and all that it starts meanwhile, are on a host. ROS is not to be initialised before."""
        with Path("/proc/thread-self/ns/net").open() as home:
            _move((NAMESPACES / self.namespace(host)).open())
            try:
                yield
            finally:
                _move(home)

    def cut(self, host: str) -> None:
        """Take a host's link down."""
        self._inside(SWITCH, "ip", "link", "set", self._port(host), "down")

    def mend(self, host: str) -> None:
        """Take it up again."""
        self._inside(SWITCH, "ip", "link", "set", self._port(host), "up")

    def lose(self, share: float) -> None:
        """From here on, this share of the Ethernet frames that are sent to a host does not reach it."""
        drop = f"numgen random mod 1000 < {round(1000 * share)} drop"
        for host in self.hosts:
            self._filter(host, "loss", drop if share else "accept")

    def forbid_multicast(self) -> None:
        """From here on, hosts hear nothing that is sent to a group: as in many wireless networks."""
        for host in self.hosts:
            self._filter(host, "multicast", "ip daddr 224.0.0.0/4 drop")

    def bytes(self, host: str) -> tuple[int, int]:
        """What the host's link has received and sent so far."""
        (told,) = json.loads(self._inside(host, *["ip", "-statistics", "-json", "link", "show", "eth0"]))
        return told["stats64"]["rx"]["bytes"], told["stats64"]["tx"]["bytes"]

    def environment(self, discovery: str) -> dict[str, str]:
        """Variables of processes on the hosts: UDP alone, and how they find each other, one of `DISCOVERY`."""
        variables = dict.fromkeys(PROFILE_VARIABLES, str(share("config/fastdds_udp.xml")))
        variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST" if discovery == "peers" else "SUBNET"
        variables["ROS_STATIC_PEERS"] = variables["ROS_DISCOVERY_SERVER"] = ""
        if discovery == "peers":
            variables["ROS_STATIC_PEERS"] = ";".join(map(self.address, self.hosts))
        if discovery == "server":
            variables["ROS_DISCOVERY_SERVER"] = f"{self.address(self.hosts[0])}:{SERVER_PORT}"
        return variables

    def server_command(self) -> list[str]:
        """What runs Fast DDS's discovery server, on the first host.

        Raises:
            RuntimeError: it is not installed.
        """
        name, address = "fast-discovery-server", self.address(self.hosts[0])
        places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
        program = shutil.which(name, path=places)
        if program is None:
            raise RuntimeError(f"{name} is not installed; it comes with Fast DDS (source ROS 2, or tools/set_up.py)")
        return [program, "-i", "0", "-l", address, "-p", str(SERVER_PORT)]

    def _port(self, host: str) -> str:
        """The switch's end of a host's link."""
        return f"port_{self.hosts.index(host)}"

    def _connect(self, host: str) -> None:
        port, there = self._port(host), self.namespace(host)
        self._inside(SWITCH, *f"ip link add {port} type veth peer name eth0 netns {there}".split())
        self._inside(SWITCH, *f"ip link set {port} master bridge up".split())
        self._inside(host, *f"ip address add {self.address(host)}/24 dev eth0".split())
        self._inside(host, *["ip", "link", "set", "eth0", "up"])
        self._inside(host, *["ip", "route", "add", "default", "dev", "eth0"])
        for place, device in ((host, "eth0"), (SWITCH, port)):
            self._shape(place, device)

    def _shape(self, place: str, device: str) -> None:
        """Rate and delay of what leaves by a device."""
        link, parent = self._link, "root"
        if link.delay_ms:
            words = f"tc qdisc add dev {device} root handle 1: netem limit 10000 delay {link.delay_ms}ms"
            self._inside(place, *words.split())
            parent = "parent 1:1"
        if link.mbit:
            words = f"tc qdisc add dev {device} {parent} handle 10: tbf rate {link.mbit}mbit burst {BURST}"
            self._inside(place, *words.split(), "latency", f"{QUEUE_MS}ms")

    def _filter(self, host: str, name: str, rule: str) -> None:
        """Put `rule` between a host and its link, in the place of the last one of this name."""
        table, hook = f"table netdev {name}", "{ type filter hook ingress device eth0 priority 0; }"
        again = f"add {table}; delete {table}; add {table}"
        chain = f"netdev {name} {name}"
        self._inside(host, "nft", f"{again}; add chain {chain} {hook}; add rule {chain} {rule}")

    def _inside(self, place: str, *words: str) -> str:
        return _run(*self.command(place, words))


def _move(namespace: IO[str]) -> None:
    """This thread to a network namespace; what Python 3.12 calls os.setns."""
    with namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace.name}")


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout
