from __future__ import annotations

import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.nodes import environment
from perception.nodes.environment import PROFILE_VARIABLES, preflight, prepare
from perception.tasks.resources import share

NAMESPACE = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"

MODE = "RMW_FASTRTPS_PUBLICATION_MODE"


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nobody set anything; what `prepare` sets is undone after the test."""
    others = ("AMENT_PREFIX_PATH", "RMW_IMPLEMENTATION", MODE, environment.SEGMENT_VARIABLE)
    for variable in (*PROFILE_VARIABLES, *others):
        monkeypatch.setenv(variable, "")  # so that monkeypatch restores it
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(environment, "preflight", lambda profile: [])
    return monkeypatch


def segment_size(profile: str) -> int:
    sizes = [int(element.text or "") for element in ElementTree.parse(profile).iter(f"{NAMESPACE}segment_size")]
    assert len(sizes) == 1
    return sizes[0]


def test_shipped_profile_is_set_for_old_and_new_fast_dds(clean: pytest.MonkeyPatch) -> None:
    prepare()
    assert {os.environ[variable] for variable in PROFILE_VARIABLES} == {str(share("config/fastdds.xml"))}
    assert segment_size(os.environ[PROFILE_VARIABLES[0]]) == 64 << 20


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_profile_of_the_user_stays(clean: pytest.MonkeyPatch, variable: str) -> None:
    clean.setenv(variable, "/mine.xml")
    prepare(segment_bytes=8 << 20)
    assert {name: os.environ.get(name) for name in PROFILE_VARIABLES if name in os.environ} == {variable: "/mine.xml"}


@pytest.mark.parametrize(("given", "expected"), [(None, "ASYNCHRONOUS"), ("SYNCHRONOUS", "SYNCHRONOUS")])
def test_the_middleware_sends_from_its_own_thread(clean: pytest.MonkeyPatch, given: str | None, expected: str) -> None:
    if given:
        clean.setenv(MODE, given)
    prepare()
    assert os.environ[MODE] == expected


def test_another_middleware_gets_no_profile_and_is_told(
    clean: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clean.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    prepare()
    assert not any(name in os.environ for name in PROFILE_VARIABLES)
    assert MODE not in os.environ
    assert "rmw_cyclonedds_cpp" in caplog.text


def test_prefix_is_the_virtual_environment_only_where_it_holds_rclpy(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setattr(sys, "prefix", str(tmp_path))
    prepare()
    assert "AMENT_PREFIX_PATH" not in os.environ
    marker = tmp_path / "share/ament_index/resource_index/packages/rclpy"
    marker.parent.mkdir(parents=True)
    marker.touch()
    prepare()
    assert os.environ["AMENT_PREFIX_PATH"] == str(tmp_path)
    clean.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    prepare()
    assert os.environ["AMENT_PREFIX_PATH"] == "/opt/ros/jazzy"


def test_segment_size_by_argument_and_by_variable(clean: pytest.MonkeyPatch) -> None:
    clean.setenv(environment.SEGMENT_VARIABLE, str(5 << 20))
    prepare()
    assert segment_size(os.environ[PROFILE_VARIABLES[0]]) == 5 << 20
    for name in PROFILE_VARIABLES:
        clean.delenv(name)
    prepare(segment_bytes=6 << 20)  # the argument wins
    assert segment_size(os.environ[PROFILE_VARIABLES[1]]) == 6 << 20


@pytest.mark.parametrize("size", ["64 MB", "-1", "0", "1000", str(1 << 32), "٣"])
def test_impossible_segment_is_refused(clean: pytest.MonkeyPatch, size: str) -> None:
    clean.setenv(environment.SEGMENT_VARIABLE, size)
    with pytest.raises(ValueError, match=f"{environment.SEGMENT_VARIABLE}.*1048576 to 4294967295"):
        prepare()
    assert not any(name in os.environ for name in PROFILE_VARIABLES)


@given(rmem=st.integers(1, 1 << 24), wmem=st.integers(1, 1 << 24))
def test_preflight_names_the_sysctl_of_exactly_the_low_limits(
    tmp_path_factory: pytest.TempPathFactory, rmem: int, wmem: int
) -> None:
    proc = tmp_path_factory.mktemp("core")
    (proc / "rmem_max").write_text(f"{rmem}\n")
    (proc / "wmem_max").write_text(f"{wmem}\n")
    notices = " ".join(preflight(share("config/fastdds.xml"), proc))
    assert ("net.core.rmem_max=4194304" in notices) == (rmem < 4 << 20)
    assert ("net.core.wmem_max=4194304" in notices) == (wmem < 4 << 20)


def test_preflight_without_shared_memory_or_visible_limits(tmp_path: Path) -> None:
    (notice,) = preflight(share("config/fastdds.xml"), tmp_path / "absent", tmp_path / "none")
    assert "0 MiB free" in notice and "64 MiB" in notice and environment.SEGMENT_VARIABLE in notice
