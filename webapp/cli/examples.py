"""Examples for the help of each command; what stands before them is `flask --app wsgi` or `python3 -m ops`."""

from __future__ import annotations

from collections.abc import Iterable

import click

_ID = "01a21a44-f53b-77cd-a19a-6e0ee0642314"
_DIGEST = "6e3f02c57d1be1f5cb3a6c6cd0f6dcbe1f0f7bb1ba0b6d0e7d7c33b1a2f4c958"

EXAMPLES = {
    "jobs submit": (
        """jobs submit '{"task": "sleep", "seconds": 2}' --wait""",
        "jobs submit @payload.json --key order-17 --priority 7",
        "jobs submit - --delay 3600 < payload.json",
    ),
    "jobs list": (
        "jobs list --status failed --task send-email --limit 50",
        """jobs list --payload '{"customer": 17}' --json""",
    ),
    "jobs show": (f"jobs show {_ID} --attempts",),
    "jobs explain": (f"jobs explain {_ID}",),
    "jobs wait": (f"jobs wait {_ID} --timeout 60",),
    "jobs tail": (f"jobs tail {_ID}",),
    "jobs watch": ("jobs watch --queue mail", "jobs watch --status processing --every 5"),
    "jobs cancel": (f"jobs cancel {_ID} --reason 'ordered twice'",),
    "jobs retry": (f"jobs retry {_ID} --reason 'the address was mended'",),
    "dlq groups": ("dlq groups", "dlq groups --task send-email --dead-after 2026-11-24T00:00:00Z"),
    "dlq list": ("dlq list --error-type smtplib.SMTPServerDisconnected --limit 50",),
    "dlq requeue": (
        "dlq requeue --task send-email --rate 5 --why 'the server is back' --dry-run",
        f"dlq requeue --id {_ID}",
    ),
    "dlq discard": ("dlq discard --fingerprint 0dec451a4c4d7a6a --why 'known and harmless'",),
    "batches list": ("batches list --status closed", "batches list --name import-7310 --json"),
    "batches show": (f"batches show {_ID}",),
    "batches explain": (f"batches explain {_ID}",),
    "batches close": (f"batches close {_ID}",),
    "batches cancel": (f"batches cancel {_ID} --reason 'the file was wrong'",),
    "batches retry": (f"batches retry {_ID} --reason 'the address was mended'",),
    "schedules list": ("schedules list --state paused", "schedules list --json"),
    "schedules show": ("schedules show nightly-report",),
    "schedules apply": (
        "schedules apply schedules.toml --dry-run",
        "schedules apply schedules.toml --delete --why 'release 7'",
    ),
    "schedules delete": ("schedules delete nightly-report",),
    "schedules preview": ("schedules preview --cron '30 2 * * *' --zone Europe/Berlin --count 3",),
    "schedules next": ("schedules next nightly-report --count 3",),
    "schedules explain": ("schedules explain nightly-report",),
    "schedules pause": (
        "schedules pause nightly-report --note 'the warehouse is being moved'",
        "schedules pause --all --note 'a dump was restored'",
    ),
    "schedules resume": ("schedules resume nightly-report",),
    "schedules run": ("schedules run nightly-report --overlap allow_all --why 'the report was wrong'",),
    "schedules backfill": (
        "schedules backfill nightly-report --from 2026-11-01T00:00:00Z --to 2026-11-20T00:00:00Z --dry-run",
    ),
    "schedules firings": ("schedules firings nightly-report --outcome skipped --limit 5",),
    "schedules versions": ("schedules versions nightly-report --json",),
    "workflows list": ("workflows list --status failed", "workflows list --name nightly-etl --json"),
    "workflows show": (f"workflows show {_ID}",),
    "workflows graph": (f"workflows graph {_ID}",),
    "workflows explain": (f"workflows explain {_ID}", f"workflows explain {_ID} --step load"),
    "workflows cancel": (f"workflows cancel {_ID} --reason 'the source is being rebuilt'",),
    "workflows retry": (f"workflows retry {_ID} --reason 'the source is back'",),
    "queues list": ("queues list", "queues list --json"),
    "queues show": ("queues show default",),
    "queues set": (
        "queues set mail --concurrency 4 --rate 100/60",
        "queues set import --key-concurrency 1",
        "queues set import --none",
    ),
    "queues keys": ("queues keys import", "queues keys import --json"),
    "queues set-key": (
        "queues set-key import acme --weight 3",
        "queues set-key import acme --paused --why 'their import loops'",
        "queues set-key import acme --none",
    ),
    "queues apply": ("queues apply limits.toml --dry-run", "queues apply limits.toml --why 'release 7'"),
    "queues pause": ("queues pause default --why 'nightly maintenance'",),
    "queues resume": ("queues resume default --why 'maintenance is over'",),
    "queues history": ("queues history default --limit 5",),
    "tasks list": ("tasks list",),
    "tasks show": ("tasks show send-email",),
    "tasks set": ("tasks set send-email --concurrency 2", "tasks set send-email --none"),
    "tasks pause": ("tasks pause send-email --why 'the mail server is down'",),
    "tasks resume": ("tasks resume send-email",),
    "tasks history": ("tasks history send-email",),
    "access init": ("access init", "access init --again"),
    "access bootstrap": ("access bootstrap",),
    "access key create": (
        "access key create dashboard --role viewer",
        "access key create shop --scope jobs:submit --scope jobs:read --network 10.0.0.0/8 --days 90",
        "access key create boss --role admin --tenant acme",
    ),
    "access key list": ("access key list", "access key list --all --json"),
    "access key rotate": ("access key rotate 7", "access key rotate 7 --overlap 3600"),
    "access key quotas": ("access key quotas 7 submit_per_minute=600", "access key quotas 7"),
    "access key revoke": ("access key revoke 7",),
    "access key find": ("access key find < pasted.txt",),
    "access tenant create": ("access tenant create acme --name 'ACME Ltd'",),
    "access tenant list": ("access tenant list", "access tenant list --json"),
    "access tenant show": ("access tenant show acme",),
    "access tenant secrets": ("access tenant secrets acme",),
    "access tenant suspend": ("access tenant suspend acme",),
    "access tenant resume": ("access tenant resume acme",),
    "access tenant quotas": (
        "access tenant quotas acme submit_per_minute=6000",
        "access tenant quotas acme",
    ),
    "audit verify": ("audit verify", f"audit verify --digest {_DIGEST} --json"),
    "audit list": ("audit list --event key.create", f"audit list --target job:{_ID} --json"),
    "workers list": ("workers list --json",),
}


def show_in(groups: Iterable[click.Group], under: str = "") -> None:
    """Puts the examples at the end of each command's help.

    Args:
        under: the words that come before the groups' own.
    """
    for group in groups:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                show_in([command], f"{under}{group.name} ")
                continue
            lines = EXAMPLES[f"{under}{group.name} {name}"]
            # Without the mark click would fill lines.
            command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
