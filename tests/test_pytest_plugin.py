"""The pytest plugin, in pytest runs of its own: `pytester` makes and runs them."""

import os
import re
import subprocess
import sys

import pytest

import katcp
import pytest_katcp
from tests.support.snippets import DOCS, ROOT, rest_snippets

pytest_plugins = ["pytester"]

PAGE = (DOCS / "howto" / "testing.rst").read_text("utf-8")
MODULE = "\n\n".join(snippet for _, snippet in rest_snippets(PAGE))


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a module of tests in this process, with this plugin alone."""
    # pytest would warn that it cannot rewrite the plugin and the package: both are imported here.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(source, *options):
        pytester.makepyfile(source)
        # With ``python -O`` pytest warns of the asserts, which it keeps alive itself.
        warnings = ["-W", "error", "-W", "ignore::pytest.PytestConfigWarning"]
        return pytester.runpytest_inprocess(
            "--strict-markers", *warnings, *options, plugins=[pytest_katcp]
        )

    return run


@pytest.fixture
def environment(monkeypatch):
    """Let other processes find this checkout, wherever they run."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def test_how_to(run, logs):
    """The code of the page is one module, whose tests pass."""
    assert MODULE.count("\ndef test_") == 13
    run(MODULE).assert_outcomes(passed=15)
    logs.expect("Connection reset by peer")


def test_how_to_shows_the_message_as_it_is(run):
    failing = """
def test_fails(amplifier, katcp_client):
    set_gain(katcp_client, 3.5)
    amplifier.assert_asked("gain", 4)
"""
    result = run(MODULE + failing, "-k", "test_fails")
    message = re.search(r"^   AssertionError: \?gain 4(.+\n)+", PAGE, re.MULTILINE)[0]
    shown = [f"E   *{line.strip()}" for line in message.splitlines()]
    result.stdout.fnmatch_lines(['>*amplifier.assert_asked("gain", 4)', *shown])


def test_device_and_client_are_stopped_after_the_test(run):
    run(
        """
        left = []

        def test_fails(katcp_device, katcp_client, make_katcp_device):
            left.extend([katcp_device, make_katcp_device()])
            left.append(katcp_client)
            assert [device.running for device in left[:2]] == [True, True]
            assert katcp_client.is_connected()
            assert katcp_client.protocol_flags == katcp_device.protocol
            assert False

        def test_afterwards():
            assert [device.running for device in left[:2]] == [False, False]
            assert not left[2].running()
        """
    ).assert_outcomes(passed=1, failed=1)


def test_marker_of_the_test_comes_before_those_around_it(run):
    run(
        """
        import pytest

        pytestmark = pytest.mark.katcp_device(protocol="4", name="module")

        def test_module(katcp_device):
            assert (str(katcp_device.protocol), katcp_device.name) == ("4.0", "module")

        @pytest.mark.katcp_device(name="class")
        class TestClass:
            def test_class(self, katcp_device):
                assert (str(katcp_device.protocol), katcp_device.name) == ("4.0", "class")

            @pytest.mark.katcp_device(protocol="5.0-IM", faults=["late-reply=0.1"])
            def test_own(self, katcp_device):
                assert (str(katcp_device.protocol), katcp_device.name) == ("5.0-IM", "class")
                assert list(map(str, katcp_device.faults)) == ["late-reply=0.1"]

            @pytest.mark.katcp_device(name="own")
            def test_factory(self, make_katcp_device):
                device = make_katcp_device(protocol="5.1-B")
                assert (str(device.protocol), device.name) == ("5.1-B", "own")
        """
    ).assert_outcomes(passed=4)


def test_tests_do_not_share_the_sensors_of_a_marker(run):
    run(
        """
        import pytest
        from katcp.simdevice import Sensor

        pytestmark = pytest.mark.katcp_device(sensors=[Sensor("gain", "float", value=1.0)])

        @pytest.mark.parametrize("time", [1, 2])
        def test_gain(katcp_device, time):
            assert katcp_device.sensors["gain"].read(0.0).value == 1.0
            katcp_device.set_sensor("gain", 2.0)

        @pytest.mark.katcp_device(sensors=None)
        def test_default(katcp_device):
            assert "temperature" in katcp_device.sensors
        """
    ).assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("'4'", "the marker takes keywords only, not '4'"),
        ("version='4'", "*unexpected keyword argument 'version'"),
        ("protocol='five'", "'five' is no protocol: use a text like '5.1-MIB' or '4'."),
        ("faults=['bad']", "There is no fault 'bad': use one of *"),
        ("faults='reset'", "The faults must be a sequence of faults, not one text."),
    ],
)
def test_marker_that_makes_no_sense(run, marker, message):
    result = run(
        f"""
        import pytest

        @pytest.mark.katcp_device({marker})
        def test(katcp_device):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"@pytest.mark.katcp_device: {message}"])
    result.stdout.no_fnmatch_line("*simdevice.py*")


def test_client_that_is_not_greeted(run, monkeypatch):
    monkeypatch.setattr(pytest_katcp, "GREETING_TIMEOUT", 0.01)
    result = run(
        """
        import pytest

        @pytest.mark.katcp_device(faults=["no-greeting", "no-reply"])
        def test(katcp_client):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["katcp_client was not greeted by <SimulatedDevice *>; faults: no-greeting, no-reply"]
    )


def test_marker_of_the_client(run):
    run(
        """
        import pytest
        from katcp import KatcpClientTimeout

        pytestmark = [
            pytest.mark.katcp_device(faults=["no-reply:watchdog"]),
            pytest.mark.katcp_client(timeout=0.02, max_msg_size=1000),
        ]

        def test_module(katcp_client):
            with pytest.raises(KatcpClientTimeout, match="after 0.02"):
                katcp_client.ask("watchdog")
            assert katcp_client.MAX_MSG_SIZE == 1000

        @pytest.mark.katcp_client(timeout=0.01)
        def test_own(katcp_client, katcp_device, make_katcp_client):
            with pytest.raises(KatcpClientTimeout, match="after 0.01"):
                katcp_client.ask("watchdog")
            other = make_katcp_client(katcp_device, timeout=0.03)
            with pytest.raises(KatcpClientTimeout, match="after 0.03"):
                other.ask("watchdog")
            assert katcp_client.MAX_MSG_SIZE == other.MAX_MSG_SIZE == 1000
        """
    ).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("1", "the marker takes keywords only, not 1"),
        ("time=1", "*unexpected keyword argument 'time'"),
        ("timeout='soon'", "*timeout*'soon'*"),
    ],
)
def test_marker_of_the_client_that_makes_no_sense(run, marker, message):
    result = run(
        f"""
        import pytest

        @pytest.mark.katcp_client({marker})
        def test(katcp_client):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"@pytest.mark.katcp_client: {message}"])


def test_clients_of_several_devices_are_stopped_before_them(run, logs):
    run(
        """
        left = []

        def test_two(make_katcp_client, make_katcp_device):
            for name in ("left", "right"):
                left.append(make_katcp_client(make_katcp_device(name=name)))
            assert [client.ask("watchdog").arguments for client in left] == [[], []]

        def test_afterwards():
            assert [client.running() for client in left] == [False, False]
        """
    ).assert_outcomes(passed=2)
    # A client that loses its device says so.
    assert logs.unexpected() == []


def test_markers_and_fixtures_are_listed(run):
    markers = run("", "--markers").stdout.str()
    assert "@pytest.mark.katcp_device(protocol=" in markers
    assert "@pytest.mark.katcp_client(timeout=" in markers
    listed = run("", "--fixtures").stdout.str()
    for name in ("katcp_device", "katcp_client", "make_katcp_device", "make_katcp_client"):
        assert re.search(rf"^{name} .*\n    \w+", listed, re.MULTILINE)


def test_run_without_devices_does_not_import_the_package(pytester, environment):
    pytester.makepyfile(
        """
        import sys

        def test():
            assert "pytest_katcp" in sys.modules
            assert not {"katcp", "tornado"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-p", "pytest_katcp").assert_outcomes(passed=1)


def test_package_needs_no_pytest(environment):
    needs_extra_cli = {
        "katcp.cli.watch.table",
        "katcp.cli.shell.completer",
        "katcp.cli.shell.prompt",
    }
    paths = [path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("katcp/**/[a-z]*.py")]
    modules = sorted({".".join(path.parts) for path in paths} - needs_extra_cli)
    assert "katcp.simdevice.device" in modules
    code = f"import sys; sys.modules['pytest'] = None; import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_asserts_of_the_package_are_off_under_python_without_asserts():
    """pytest would keep them alive, as those of everything that a plugin is installed with."""
    assert __debug__ or "pytest" not in type(katcp.__loader__).__module__


def test_plugin_is_installed():
    """Here it may be the checkout that names it: what is installed stands in setup.py."""
    setup = (ROOT / "setup.py").read_text("utf-8")
    assert 'py_modules=["pytest_katcp"]' in setup
    assert '"pytest11": ["pytest_katcp = pytest_katcp"]' in setup
