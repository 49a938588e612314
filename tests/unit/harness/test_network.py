"""Which interface leads to another machine."""

import psutil
import pytest

from tlbench.network import interface_towards


def test_the_way_to_an_address_of_this_machine_is_the_interface_that_has_it() -> None:
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("localhost") == "lo"


def test_an_interface_without_the_address_of_the_sender_is_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    assert interface_towards("127.0.0.1") is None


def test_a_host_that_is_not_known_is_told() -> None:
    with pytest.raises(OSError, match="Errno -"):
        interface_towards("no host")
