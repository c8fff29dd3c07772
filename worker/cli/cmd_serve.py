"""`archiver serve`."""

from __future__ import annotations

from rich.text import Text

from worker.cli.shared import err, out, read_settings


def serve() -> None:
    """Send alerts and events, take webhooks of 100ms, and show health and metrics over HTTP. Stays in the foreground.

    One is enough, beside the workers; `archiver up` starts it. ARCHIVER_SERVE_PORT has /healthz (would a restart
    help?), /readyz (does the archiver make progress?) and /webhooks/100ms; ARCHIVER_METRICS_PORT has /metrics. It
    starts without Redis too, so that it can tell that Redis is unreachable.

    Exit code 2 when an alert URL is wrong or a port is taken.

    Examples:
      archiver serve
      curl http://127.0.0.1:8080/readyz   what keeps it from making progress
    """
    from worker.alerts.channels import open_channels
    from worker.broker import broker_url
    from worker.serve.server import serve as run

    settings = read_settings()
    channels = open_channels(settings.channels)
    if not channels:
        err.print("ARCHIVER_ALERT_URLS is not set: alerts are only logged.", style="yellow")
    if settings.webhook_secret is None:
        err.print("ARCHIVER_WEBHOOK_SECRET is not set: webhooks are refused.", style="yellow")

    def show(main: str, metrics: str) -> None:
        out.print(Text(f"Health, webhooks: {main}"), soft_wrap=True)
        out.print(Text(f"Metrics:          {metrics}"), soft_wrap=True)

    with broker_url(settings) as url:
        run(settings, redis_url=url, channels=channels, on_start=show)
