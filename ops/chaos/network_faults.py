"""Faults of the network, by the proxies before both servers."""

from __future__ import annotations

from ops.chaos.stage import Fault, Stage


def reset_connections(stage: Stage) -> None:
    """Every connection is reset."""
    for _ in range(5):
        with stage.fault("connections reset"):
            for proxy in stage.system.proxies.values():
                proxy.reset()
        stage.hold(1)


def blackhole(which: str, seconds: float) -> Fault:
    """Proxies whose name begins with `which` take everything and pass nothing on."""

    def inject(stage: Stage) -> None:
        proxies = [one for name, one in stage.system.proxies.items() if name.startswith(which)]
        with stage.fault(f"{which} black-holed for {seconds:g} s"):
            for proxy in proxies:
                proxy.blackhole()
            stage.hold(seconds)
            for proxy in proxies:
                # What was on its way is gone with the cable; new connections work.
                proxy.reset()
                proxy.heal()

    return inject


def delay(seconds: float, for_seconds: float) -> Fault:
    """Every piece of data takes longer."""

    def inject(stage: Stage) -> None:
        with stage.fault(f"{seconds * 1000:g} ms more for {for_seconds:g} s"):
            for proxy in stage.system.proxies.values():
                proxy.delay(seconds)
            stage.hold(for_seconds)
            for proxy in stage.system.proxies.values():
                proxy.heal()

    return inject
