"""The fastest power mode is found by its name: the same number is the slowest of another module."""
import pytest
from conftest import PROJECT

FULL_POWER = PROJECT / "packaging/full-power"
MODES = {
    "orin-nano-super": (["15W", "25W", "MAXN_SUPER"], "2"),
    "orin-nx-super": (["MAXN_SUPER", "10W", "15W"], "0"),
    "agx-orin": (["MAXN", "MODE_15W"], "0"),
    "both": (["MAXN", "25W", "MAXN_SUPER"], "2"),
}


@pytest.fixture
def jetson(machine):
    for name in ("nvpmodel", "jetson_clocks"):
        machine.program(name)
    machine.environment = {"PI0_EDGE_NVPMODEL_CONF": str(machine.root / "nvpmodel.conf")}
    return machine


def modes(jetson, names):
    text = "".join(f"< POWER_MODEL ID={number} NAME={name} >\nGPU MAX_FREQ -1\n" for number, name in enumerate(names))
    (jetson.root / "nvpmodel.conf").write_text(f"< PARAM TYPE=FILE NAME=CPU_ONLINE >\n{text}< PM_CONFIG DEFAULT=1 >\n")


@pytest.mark.parametrize("module", MODES)
def test_by_name(jetson, module):
    names, fastest = MODES[module]
    modes(jetson, names)
    jetson.run(FULL_POWER)
    assert jetson.log() == [f"nvpmodel [-m] [{fastest}]", "jetson_clocks"]


def test_without_such_a_mode_nothing_is_set(jetson):
    modes(jetson, ["15W", "MAXN_LIKE"])
    assert "no mode" in jetson.run(FULL_POWER, ok=False).stderr
    assert jetson.log() == []
