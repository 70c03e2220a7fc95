"""`edfn-agent run`: the service. Reads the configuration, turns signals into calls of the agent, and waits."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edfn_agent.commands.options import configuration

if TYPE_CHECKING:
    from collections.abc import Callable

    from edfn_agent.agent import Agent
    from edfn_agent.config import Config
    from edfn_agent.ops.http import StatusServer

STUCK_AFTER = 15.0
"""Seconds beyond shutdown_timeout before the parent kills a worker."""

LISTEN_AGAIN = 5.0
"""Seconds until a worker tries its port of `http.listen` again; exporting does not wait for whoever has it."""


@click.command()
@configuration()
@click.option("--worker", type=int, hidden=True, help="Set by the parent of several workers.")
def run(file: str, worker: int | None) -> None:
    """Run the service: discover, read every enabled source, export, acknowledge only what has gone out.

    SIGHUP reads the configuration again; a faulty one is refused and the old one stays. SIGTERM and SIGINT stop: what
    is in hand is finished or returned to its source within shutdown_timeout; a second one stops at once.

    Exit status: 0 stopped as asked, 1 failed, 2 configuration.
    """
    from edfn_agent.config import ConfigError, load_with_warnings

    signals = _Signals()  # before the configuration is read: a SIGHUP that comes later means another one
    try:
        config, warnings = load_with_warnings(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    _configure_log(config)
    import structlog

    log = structlog.get_logger("edfn.agent")
    for warning in warnings:
        log.warning(str(warning))
    if config.workers > 1 and worker is None:
        sys.exit(_parent(config, Path(file), signals))
    sys.exit(_work(config, Path(file), worker or 0, signals, worker is not None))


class _Signals:
    """Signals as events; the handlers do nothing else."""

    def __init__(self) -> None:
        from edfn_agent.workers import hear_signals

        self.stop = threading.Event()
        self.reload = threading.Event()
        self.at_once: Callable[[], None] = lambda: None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: self.reload.set())
        hear_signals()

    def _stop(self, *_: Any) -> None:
        if self.stop.is_set():
            self.at_once()
            os._exit(1)  # asked twice: at once. Sources hand over again what was not acknowledged
        self.stop.set()


def _configure_log(config: Config) -> Any:
    from edfn_agent.ops import logs

    secrets = [role.external_id.get_secret_value() for role in config.aws.roles if role.external_id]
    key_file = config.inputs.firehose.access_key_file if config.inputs.firehose else None
    if key_file is not None and key_file.is_file():
        secrets += key_file.read_text(errors="replace").split()
    return logs.configure(config.log.level, config.log.format, secrets=secrets)


def _work(config: Config, path: Path, worker: int, signals: _Signals, worker_of_parent: bool) -> int:
    """One worker, to its end."""
    import structlog

    from edfn_agent.agent import Agent
    from edfn_agent.garbage import expect_many_objects
    from edfn_agent.ops.http import ListenError
    from edfn_agent.ops.notify import Notifier, Watchdog
    from edfn_agent.state import StateError
    from edfn_agent.workers import Parent

    log = structlog.get_logger("edfn.agent")
    notifier, parent = Notifier(), Parent()
    try:
        agent = Agent(config, worker, config.workers)
    except StateError as error:
        log.error("the state cannot be used", error=str(error))
        return 1
    agent.say_hello()
    pages = _Pages(agent, config, worker)
    try:
        pages.open()
    except ListenError as error:
        log.error("http.listen cannot be opened", error=str(error))
        if not worker_of_parent:  # it has looked at the start; what takes a port later keeps no worker from its work
            return 1
    watchdog = Watchdog(notifier, agent.progress.alive, status=lambda: "; ".join(agent.health()[1]) or "reading")
    starting = threading.Thread(target=agent.start, name="start", daemon=True)
    starting.start()
    while starting.is_alive() and not signals.stop.is_set():
        starting.join(0.1)
        parent.alive()
    if agent.started:
        expect_many_objects()
        notifier.ready("reading")
        parent.ready()
        log.info("ready")
    elif not signals.stop.is_set():
        return 1  # the thread has said why; systemd starts the service again
    watchdog.start()
    current = _configure_log(config)
    parent_pid = os.getppid()
    reloading: threading.Thread | None = None
    while not signals.stop.wait(1.0):
        current.tick()
        pages.try_again()
        if agent.progress.alive():
            parent.alive()
        if worker_of_parent and os.getppid() != parent_pid:
            log.error("the parent of this worker is gone, so it stops")
            break
        if reloading is not None and not reloading.is_alive():
            reloading = None
            config = agent.config
            current = _configure_log(config)
            notifier.ready("reading")
        if signals.reload.is_set() and reloading is None:
            signals.reload.clear()
            notifier.reloading()
            log.info("reading the configuration again")
            # aside: a reload waits for what the inputs have in hand, and a stop must not wait for that
            reloading = threading.Thread(target=_reload, args=(agent, config, path), name="reload", daemon=True)
            reloading.start()
    log.info("stopping", within_s=config.shutdown_timeout)
    notifier.stopping(config.shutdown_timeout, "stopping")
    agent.stop()
    watchdog.close()
    pages.close()
    current.close()
    notifier.status("stopped")
    return 0


class _Pages:
    """`http.listen` of one worker: opened, and tried again where somebody has the port."""

    def __init__(self, agent: Agent, config: Config, worker: int) -> None:
        self._agent, self._listen, self._worker = agent, config.http.listen, worker
        self._server: StatusServer | None = None
        self._next_try = 0.0

    def open(self) -> None:
        """Raises ListenError."""
        import structlog

        from edfn_agent.ops.http import Readiness, StatusServer

        listen, agent = self._listen, self._agent
        if listen is None:
            return

        def health() -> Readiness:
            ready, reasons = agent.health()
            return Readiness(ready, reasons or agent.degraded())

        self._next_try = time.monotonic() + LISTEN_AGAIN
        self._server = StatusServer(
            listen.host,
            listen.port + self._worker if listen.port else 0,
            registry=agent.metrics.registry,
            health=health,
            templates=agent.templates,
            alive=lambda: agent.progress.alive(),
        )
        self._server.start()
        host, port = self._server.address
        structlog.get_logger("edfn.agent").info("metrics and health", url=f"http://{host}:{port}/metrics")

    def try_again(self) -> None:
        from edfn_agent.ops.http import ListenError

        if self._listen is not None and self._server is None and time.monotonic() >= self._next_try:
            with contextlib.suppress(ListenError):  # it was said
                self.open()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


def _reload(agent: Any, config: Config, path: Path) -> None:
    """Put the new configuration in force, or leave the old one when the new one has faults."""
    import structlog

    from edfn_agent.config import ConfigError, load

    log = structlog.get_logger("edfn.agent")
    try:
        new = load(path)
    except ConfigError as error:
        for fault in error.faults:
            log.error("the new configuration is refused, the old one stays", fault=str(fault))
        return
    if new == config:
        log.info("the configuration has not changed; discovering")
    for name in agent.reload(new):
        log.warning("this setting takes effect at the next start", setting=name)
    log.info("configuration reloaded")


def _parent(config: Config, path: Path, signals: _Signals) -> int:
    """Several workers: start, watch, stop them."""
    import structlog

    from edfn_agent.ops.http import ListenError, check_address
    from edfn_agent.ops.notify import Notifier, Watchdog
    from edfn_agent.workers import Workers

    notifier = Notifier()
    listen = config.http.listen
    if listen is not None and listen.port:
        try:
            for worker in range(config.workers):
                check_address(listen.host, listen.port + worker)
        except ListenError as error:
            last = listen.port + config.workers - 1
            structlog.get_logger("edfn.agent").error(
                "http.listen cannot be opened", error=str(error), ports_of_the_workers=f"{listen.port} to {last}"
            )
            return 1

    def command(worker: int) -> list[str]:
        return [sys.executable, "-m", "edfn_agent.cli", "run", "-c", str(path), "--worker", str(worker)]

    workers = Workers(command, config.workers, lambda: notifier.ready(f"{config.workers} workers"))
    signal.signal(signal.SIGHUP, lambda *_: workers.signal(signal.SIGHUP))
    signals.at_once = lambda: workers.signal(signal.SIGKILL)
    watchdog = Watchdog(notifier, lambda: workers.looks_after)
    watchdog.start()
    workers.run(signals.stop)
    grace = config.shutdown_timeout + STUCK_AFTER
    notifier.stopping(grace, "stopping")
    status = workers.stop(grace)
    notifier.status("stopped")
    watchdog.close()
    return status
