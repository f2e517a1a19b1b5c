"""The list of scenarios: each names a fault, how it is injected and healed, and what is expected meanwhile."""

from __future__ import annotations

from ops.chaos.child_faults import children_once
from ops.chaos.client_faults import SLOW_CLIENTS, slow_clients
from ops.chaos.crowd_faults import groups_broken, key_race
from ops.chaos.database_faults import (
    database_deadlocks,
    database_down,
    database_read_only,
    database_slow,
    table_locked,
    terminate_backends,
)
from ops.chaos.day_faults import drop_read_day, midnights, missing_day
from ops.chaos.death_faults import kill_and_retry, limits_while_away, poison_chunk
from ops.chaos.flow_scenarios import FLOW
from ops.chaos.follow_scenarios import FOLLOWED
from ops.chaos.key_faults import poison_keys
from ops.chaos.lost_answers import lose_answers
from ops.chaos.machine_faults import HEALED_WITHIN, cut_power, full_disk, up_twice
from ops.chaos.meeting_faults import cancels_at_the_end, two_ends
from ops.chaos.message_faults import drop_messages, duplicate_messages, garbage, shuffle_messages
from ops.chaos.network_faults import blackhole, delay, reset_connections
from ops.chaos.process_faults import (
    SKEWED,
    deafen,
    die_at,
    hurry_worker,
    kill_api_workers,
    kill_children,
    kill_once,
    kill_three_times,
    no_beat,
    nothing,
    rolling_restart,
    stop_children,
    stop_worker,
    two_beats,
)
from ops.chaos.redis_faults import (
    delete_queue,
    delete_unacked,
    flush,
    redis_down,
    redis_full,
    redis_paused,
    redis_stopped,
)
from ops.chaos.scenario import (
    PROMISED_REDIS,
    RACED,
    SERVED,
    WITH_ASLEEP,
    WITH_FATED,
    WITH_HELD,
    WITH_HELPERS,
    WITH_KILLER,
    WITH_LONG,
    WITH_MEDIUM,
    WITH_POISON,
    Scenario,
)
from ops.chaos.soak import soak
from ops.chaos.sweep_faults import sweeps_raise

#: What the network scenarios need; their rate is lower, for every byte passes through Python twice.
PROXIED = {"proxied": True}


def _list() -> list[Scenario]:
    return [
        Scenario("calm", "no fault at all", nothing),
        Scenario(
            "worker-kill",
            "kill -9 of the worker's parent, three times",
            kill_three_times("worker"),
            kinds=WITH_HELPERS,
            rate=10,
            jobs=120,
        ),
        Scenario(
            "worker-hurry",
            "SIGQUIT to the worker, three times: what it holds is given back",
            hurry_worker,
            kinds=WITH_HELPERS,
            rate=10,
            jobs=120,
        ),
        Scenario(
            "child-kill",
            "kill -9 of children that run jobs, eight times",
            kill_children,
            kinds=WITH_HELPERS,
            rate=20,
            jobs=200,
        ),
        Scenario(
            "child-points",
            "a child dies after the claim, before the settle, after the settle",
            die_at("after-claim", "before-settle", "after-settle"),
        ),
        Scenario(
            "children",
            "jobs that submit jobs are killed and tried again, FLUSHALL, PostgreSQL restarted",
            children_once,
            rate=4,
            jobs=60,
            kinds=WITH_HELD,
            answers=RACED,
        ),
        Scenario(
            "maintenance-kill",
            "kill -9 of the maintenance worker, three times",
            kill_three_times("maintenance"),
        ),
        Scenario("beat-kill", "kill -9 of beat, three times", kill_three_times("beat")),
        Scenario("no-beat", "no beat for 8 s while Redis is flushed", no_beat),
        Scenario("two-beats", "two beats at once", two_beats),
        Scenario("api-master-kill", "kill -9 of gunicorn's master", kill_once("api")),
        Scenario("api-worker-kill", "kill -9 of gunicorn's workers, six times", kill_api_workers),
        Scenario(
            "api-points",
            "a gunicorn worker dies before its commit, and after it but before the answer",
            die_at("before-commit", "after-commit"),
        ),
        Scenario("key-race", "100 clients post one key at once, five times", key_race, jobs=200),
        Scenario(
            "groups",
            "crowds of 32 clients: a gunicorn worker dies before and after a group's commit, then statements fail",
            groups_broken,
            jobs=200,
            rate=20,
        ),
        Scenario(
            "redis-kill",
            "Redis killed, back after 3 s with nothing in it",
            redis_down(3),
            system={"durable": False},
            within=PROMISED_REDIS,
            redis_away=True,
        ),
        Scenario(
            "redis-kill-aof",
            "Redis killed, back after 3 s with its append-only file",
            redis_down(3),
            within=PROMISED_REDIS,
            redis_away=True,
        ),
        Scenario("redis-flush", "FLUSHALL, three times", flush, within=PROMISED_REDIS),
        Scenario("redis-del-queue", "DEL of the queue with messages in it", delete_queue),
        Scenario("redis-del-unacked", "DEL of unacked and unacked_index", delete_unacked),
        Scenario(
            "redis-poison-keys",
            "every key gets another type or nonsense for a value, and none is put right",
            poison_keys,
            unharmed=True,
            jobs=600,
            within=PROMISED_REDIS,
        ),
        Scenario("redis-full", "maxmemory reached for 6 s (noeviction)", redis_full),
        Scenario(
            "redis-stop",
            "Redis stopped (SIGSTOP) for 20 s",
            redis_stopped(20),
            redis_away=True,
            jobs=1_600,
        ),
        Scenario("redis-pause", "CLIENT PAUSE for 8 s", redis_paused(8), redis_away=True, jobs=800),
        Scenario(
            "pg-immediate",
            "PostgreSQL stopped at once (SIGQUIT), back after 2 s",
            database_down(2, immediate=True),
            database_away=True,
        ),
        Scenario("pg-down", "PostgreSQL down for 30 s", database_down(30), database_away=True),
        Scenario("pg-backends", "connections ended by the server at random for 5 s", terminate_backends),
        Scenario(
            "pg-slow",
            "every statement that writes a job takes 150 ms longer, for 6 s",
            database_slow,
            jobs=300,
            rate=30,
        ),
        Scenario(
            "pg-deadlocks",
            "deadlocks, serialization failures and lock timeouts for 6 s",
            database_deadlocks,
        ),
        Scenario(
            "pg-read-only",
            "connections end, and new ones reach a server that takes no writes, for 6 s",
            database_read_only(6),
            database_away=True,
        ),
        Scenario(
            "pg-locked",
            "the table of jobs locked by another session for 20 s",
            table_locked(20),
            database_away=True,
            database_says="ok",
            jobs=600,
            rate=30,
            kinds=WITH_MEDIUM,
        ),
        Scenario(
            "net-reset",
            "every connection to both servers is reset, five times",
            reset_connections,
            system=PROXIED,
            rate=40,
        ),
        Scenario(
            "net-blackhole-redis",
            "Redis takes bytes and says nothing for 10 s",
            blackhole("redis", 10),
            system=PROXIED,
            rate=40,
            redis_away=True,
            jobs=500,
        ),
        Scenario(
            "net-blackhole-pg-api",
            "PostgreSQL takes the API's bytes and says nothing for 8 s",
            blackhole("postgres-api", 8),
            system=PROXIED,
            rate=40,
            database_away=True,
        ),
        Scenario(
            "net-blackhole-pg-tasks",
            "PostgreSQL takes the workers' bytes and says nothing for 10 s",
            blackhole("postgres-tasks", 10),
            system=PROXIED,
            rate=40,
        ),
        Scenario(
            "net-delay",
            "every packet takes 30 ms longer, for 8 s",
            delay(0.03, 8),
            system=PROXIED,
            rate=30,
            jobs=300,
        ),
        Scenario(
            "child-stop",
            "children stopped (SIGSTOP) for longer than their lease",
            stop_children,
            kinds=WITH_MEDIUM,
            rate=20,
            jobs=200,
        ),
        Scenario(
            "worker-stop",
            "the whole worker stopped for longer than its lease",
            stop_worker,
            kinds=WITH_MEDIUM,
            rate=20,
            jobs=200,
        ),
        Scenario(
            "sweep-raises",
            "every sweep raises for 4 s; then one queue does, and the others' messages are flushed",
            sweeps_raise,
            unharmed=True,
            within=PROMISED_REDIS,
        ),
        # Some take their time, so that copies meet a job that runs; as many as two children can do.
        Scenario(
            "msg-duplicate",
            "every message in the queue three times",
            duplicate_messages,
            kinds=WITH_MEDIUM,
            rate=10,
            jobs=120,
        ),
        Scenario("msg-shuffle", "messages in another order", shuffle_messages),
        Scenario("msg-drop", "half of the messages are thrown away", drop_messages),
        Scenario("msg-garbage", "noise, pickles, unknown tasks and forged ids in the queues", garbage),
        Scenario(
            "poison",
            "jobs that crash, hang, eat memory or raise the unraisable",
            nothing,
            kinds=WITH_POISON,
            jobs=250,
            rate=15,
        ),
        Scenario(
            "poison-chunk",
            "one of 200 quick jobs kills its process, with 0, 1 and 3 retries",
            poison_chunk,
            kinds=WITH_KILLER,
            rate=20,
            jobs=60,
        ),
        Scenario(
            "child-death-retry",
            "jobs that kill their process, tried again a thousand times, beside one that runs on",
            kill_and_retry,
            kinds=WITH_KILLER,
            rate=2,
            jobs=40,
        ),
        Scenario(
            "short-timeout-pg-away",
            "jobs end while PostgreSQL is away for longer than their time limit",
            limits_while_away,
            kinds=WITH_ASLEEP,
            system={"environment": {"STUCK_JOB_THRESHOLD": "60"}},
            rate=10,
            jobs=100,
            database_away=True,
            # What was claimed when PostgreSQL went away is taken back when its lease of a minute is over.
            within=90.0,
        ),
        Scenario(
            "long-job",
            "jobs longer than the visibility timeout (5 s) and than their lease",
            nothing,
            kinds=WITH_LONG,
            system={"environment": {"CHAOS_VISIBILITY_TIMEOUT": "5"}},
            jobs=150,
            rate=15,
        ),
        Scenario(
            "rolling-restart",
            "SIGTERM to every process in turn, under load",
            rolling_restart,
            jobs=800,
        ),
        Scenario("worker-clock", "the worker's clock is 10 minutes ahead", nothing, system=SKEWED),
        Scenario(
            "deaf-worker",
            "the worker lives and asks for no messages any more",
            deafen,
            system={"environment": {"CHAOS_MUTANT": "deaf"}},
            within=60,
        ),
        Scenario(
            "power-cut",
            "kill -9 of every process at the same moment, servers included",
            cut_power(1),
            answers=(0, *SERVED),
        ),
        *(
            Scenario(
                f"disk-full-{name}" if name != "data" else "disk-full",
                f"the disk under the {name} folder is full for 8 s",
                full_disk,
                system={"disk": name},
                within=HEALED_WITHIN,
                answers=SERVED,
            )
            for name in ("data", "run")
        ),
        Scenario(
            "two-ends", "two ends of one last attempt meet", two_ends, rate=20, jobs=100, kinds=WITH_FATED
        ),
        Scenario("cancel-at-end", "jobs are cancelled while they end", cancels_at_the_end, rate=10, jobs=100),
        Scenario(
            "answer-lost", "a job has ended before its submission is heard", lose_answers, rate=20, jobs=100
        ),
        Scenario("days-pass", "days of history end under load", midnights, rate=60, kinds=WITH_MEDIUM),
        Scenario("day-missing", "the day has no partition in history for 4 s", missing_day, rate=60),
        Scenario("day-dropped", "an old day of history is dropped while it is read", drop_read_day, rate=60),
        Scenario("up-twice", "two `ops up` at the same moment", up_twice, jobs=60, rate=10),
        Scenario("slow-clients", SLOW_CLIENTS, slow_clients, rate=30, tail=10, slower_at_most=3),
        *FOLLOWED,
        *FLOW,
        Scenario("soak", "all of it, at random", soak, jobs=7_000, rate=40),
    ]


SCENARIOS = {scenario.name: scenario for scenario in _list()}

#: Run by `ops test`: one system, about four minutes.
SHORT = (
    "power-cut",
    "child-points",
    "poison-chunk",
    "api-points",
    "redis-poison-keys",
    "sweep-raises",
    "pg-immediate",
    "pg-read-only",
    "msg-garbage",
    "pause",
    "limits",
    "follow-flush",
    "cancel-worker-kill",
)
