"""`djps_submit`: stores a job in the caller's own transaction; and what the database knows of handlers for that. Only adds.

What a submission asks is judged here as `webapp/jobs/request.py` and `webapp/jobs/submission.py` judge it over HTTP, as far as a database
can: it has neither the models of handlers nor the rules of what may be called. The fingerprint of a request is that of the same request over
HTTP, so that both find each other's jobs by an idempotency key.
"""

from __future__ import annotations

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

#: One sentence: which field, which rule, what was given. The last three characters of the code are HTTP's status.
_REFUSE = """
CREATE FUNCTION djps_refuse(field text, rule text, given text, code text DEFAULT 'DJ422') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = code, COLUMN = field,
        MESSAGE = field || ' ' || rule || CASE WHEN given IS NULL THEN '' ELSE '; given: ''' || left(given, 100) || '''' END;
END $$"""

#: A text as Python's `json.dumps` writes it: what is not ASCII by its UTF-16 units.
_JSON = """
CREATE FUNCTION djps_json(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    plain text := to_json(value)::text;
BEGIN
    IF plain COLLATE "C" !~ '[^ -~]' THEN
        RETURN plain;
    END IF;
    RETURN (SELECT string_agg(
                CASE WHEN code BETWEEN 32 AND 126 THEN part
                     WHEN code < 65536 THEN '\\u' || lpad(to_hex(code), 4, '0')
                     ELSE '\\u' || to_hex(55296 + ((code - 65536) >> 10)) || '\\u' || to_hex(56320 + ((code - 65536) & 1023)) END,
                '' ORDER BY at)
              FROM regexp_split_to_table(plain, '') WITH ORDINALITY AS parts(part, at), LATERAL (SELECT ascii(part) AS code) AS codes);
END $$"""

#: A float as Python's `repr` writes it: it goes over to exponents one digit later, and a whole one has a `.0`.
_FLOAT = """
CREATE FUNCTION djps_float(value float8) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT SET extra_float_digits = 1 AS $$
DECLARE
    plain text := value::text;
BEGIN
    IF plain LIKE '%e+15' THEN
        plain := plain::numeric::text;
    END IF;
    RETURN CASE WHEN plain ~ '[.e]' THEN plain ELSE plain || '.0' END;
END $$"""

#: A value in the form in which requests are compared (`webapp/jobs/submission.py: fingerprint`).
_CANONICAL = """
CREATE FUNCTION djps_canonical(value jsonb, as_floats boolean DEFAULT false) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    plain text := value #>> '{}';
BEGIN
    CASE jsonb_typeof(value)
        WHEN 'object' THEN
            RETURN '{' || coalesce((
                SELECT string_agg(djps_json(member.key) || ':' || djps_canonical(member.value, as_floats), ',' ORDER BY member.key COLLATE "C")
                  FROM jsonb_each(value) AS member), '') || '}';
        WHEN 'array' THEN
            RETURN '[' || coalesce((
                SELECT string_agg(djps_canonical(item, as_floats), ',' ORDER BY at)
                  FROM jsonb_array_elements(value) WITH ORDINALITY AS items(item, at)), '') || ']';
        WHEN 'string' THEN
            RETURN djps_json(plain);
        WHEN 'number' THEN
            RETURN CASE WHEN as_floats OR plain LIKE '%.%' THEN djps_float(plain::float8) ELSE plain END;
        ELSE
            RETURN value::text;
    END CASE;
END $$"""

#: A time as Python's `isoformat` writes it, in UTC.
_MOMENT = """
CREATE FUNCTION djps_moment(value timestamptz) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT SET timezone = 'UTC' AS $$
BEGIN
    RETURN to_char(value, 'YYYY-MM-DD"T"HH24:MI:SS')
        || CASE WHEN extract(microseconds FROM value)::int % 1000000 = 0 THEN '' ELSE to_char(value, '.US') END || '+00:00';
END $$"""

#: True for words that can be shown: no control characters, no spaces but the plain one, nothing that has no form of its own.
_PRINTABLE = """
CREATE FUNCTION djps_printable(value text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT RETURN
    value COLLATE "C" !~ U&'[\\0001-\\001f\\007f-\\00a0\\00ad\\0600-\\0605\\061c\\06dd\\070f\\1680\\180e\\2000-\\200f\\2028-\\202f\\205f-\\206f\\3000\\e000-\\f8ff\\feff\\fff9-\\fffb]'
    AND value = btrim(value)"""

#: The rules of a payload, whatever handler it is for.
_CHECK_PAYLOAD = """
CREATE FUNCTION djps_check_payload(payload jsonb, largest int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF payload IS NULL OR jsonb_typeof(payload) <> 'object' THEN
        PERFORM djps_refuse('payload', 'must be a JSON object', coalesce(jsonb_typeof(payload), 'null'));
    END IF;
    IF octet_length(payload::text) > largest THEN
        PERFORM djps_refuse('payload', format('must have at most %s bytes of JSON, as MAX_PAYLOAD_BYTES says', largest),
                            octet_length(payload::text) || ' bytes');
    END IF;
    IF jsonb_path_exists(payload, 'strict $.**{64 to last} ? (@.type() == "object" || @.type() == "array")', '{}', true) THEN
        PERFORM djps_refuse('payload', 'must not be nested deeper than 64 levels', NULL);
    END IF;
    IF jsonb_path_exists(payload, 'strict $.** ? (@ > 9223372036854775807 || @ < -9223372036854775808)', '{}', true) THEN
        PERFORM djps_refuse('payload', 'must hold no number beyond 64 bits', NULL);
    END IF;
END $$"""

#: The rules of the options, but for those that depend on the handler.
_CHECK_OPTIONS = """
CREATE FUNCTION djps_check_options(key text, priority int, run_at timestamptz, delay float8, max_retries int, timeout float8,
                                   expires_at timestamptz, callback_url text, idempotency_key text, traceparent text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    century CONSTANT timestamptz := clock_timestamp() + interval '100 years';
BEGIN
    IF length(key) NOT BETWEEN 1 AND 200 OR key LIKE U&'\\001f%' THEN
        PERFORM djps_refuse('key', 'must have 1 to 200 characters and not begin with \\u001f', key);
    END IF;
    IF priority NOT BETWEEN 0 AND 9 THEN
        PERFORM djps_refuse('priority', 'must be 0 to 9', priority::text);
    END IF;
    IF run_at >= century THEN
        PERFORM djps_refuse('run_at', 'must be at most 100 years ahead', run_at::text);
    END IF;
    IF delay IS NOT NULL AND run_at IS NOT NULL THEN
        PERFORM djps_refuse('delay', 'must not be given together with run_at', delay::text);
    END IF;
    IF delay NOT BETWEEN 0 AND 3155760000 THEN
        PERFORM djps_refuse('delay', 'must be 0 to 3155760000', delay::text);
    END IF;
    IF max_retries NOT BETWEEN 0 AND 100 THEN
        PERFORM djps_refuse('max_retries', 'must be 0 to 100', max_retries::text);
    END IF;
    IF NOT (timeout > 0 AND timeout <= 86400) THEN
        PERFORM djps_refuse('timeout', 'must be more than 0 and at most 86400', timeout::text);
    END IF;
    IF expires_at >= century OR expires_at <= clock_timestamp() OR expires_at <= run_at
       OR expires_at <= clock_timestamp() + make_interval(secs => delay) THEN
        PERFORM djps_refuse('expires_at', 'must be after now, and after run_at or delay, and at most 100 years ahead', expires_at::text);
    END IF;
    IF NOT (callback_url COLLATE "C" ~ '^https?://[!-~]+$' AND length(callback_url) <= 2048
            AND callback_url !~ '[@\\\\]') THEN
        PERFORM djps_refuse('callback_url', 'must be an http:// or https:// URL of at most 2048 printable ASCII characters, without a user', 'not shown');
    END IF;
    IF length(idempotency_key) NOT BETWEEN 1 AND 255 OR idempotency_key LIKE U&'\\001f%' THEN
        PERFORM djps_refuse('idempotency_key', 'must have 1 to 255 characters and not begin with \\u001f', idempotency_key);
    END IF;
    IF traceparent !~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' OR traceparent ~ '^00-(0{32}|[0-9a-f]{32}-0{16})' THEN
        PERFORM djps_refuse('traceparent', 'must be a W3C traceparent of version 00', traceparent);
    END IF;
END $$"""

_CHECK_TAGS = """
CREATE FUNCTION djps_check_tags(tags text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    tag text;
BEGIN
    IF cardinality(tags) > 20 OR array_ndims(tags) > 1 THEN
        PERFORM djps_refuse('tags', 'must have at most 20 items', cardinality(tags)::text);
    END IF;
    FOREACH tag IN ARRAY tags LOOP
        IF tag IS NULL OR length(tag) NOT BETWEEN 1 AND 64 OR NOT djps_printable(tag) THEN
            PERFORM djps_refuse('tags', 'must be printable texts of 1 to 64 characters that neither begin nor end with a space', coalesce(tag, 'NULL'));
        END IF;
        IF cardinality(array_positions(tags, tag)) > 1 THEN
            PERFORM djps_refuse('tags', 'must not name a tag twice', tag);
        END IF;
    END LOOP;
END $$"""

#: A backoff as it is stored; nulls of its object are what was not asked.
_CHECK_BACKOFF = """
CREATE FUNCTION djps_check_backoff(backoff jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    part record;
    least_value numeric;
    most numeric;
BEGIN
    IF jsonb_typeof(backoff) = 'array' THEN
        IF jsonb_array_length(backoff) NOT BETWEEN 1 AND 100 THEN
            PERFORM djps_refuse('backoff', 'must have 1 to 100 items', jsonb_array_length(backoff)::text);
        END IF;
        FOR part IN SELECT value FROM jsonb_array_elements(backoff) LOOP
            IF jsonb_typeof(part.value) <> 'number' OR NOT (part.value #>> '{}')::numeric BETWEEN 0 AND 2592000 THEN
                PERFORM djps_refuse('backoff', 'must be waits of 0 to 2592000 seconds', part.value::text);
            END IF;
        END LOOP;
        RETURN backoff;
    END IF;
    IF jsonb_typeof(backoff) <> 'object' THEN
        PERFORM djps_refuse('backoff', 'must be an array of seconds, or an object of base, max and jitter', jsonb_typeof(backoff));
    END IF;
    FOR part IN SELECT key, value FROM jsonb_each(jsonb_strip_nulls(backoff)) LOOP
        least_value := CASE part.key WHEN 'base' THEN 1 ELSE 0 END;
        most := CASE part.key WHEN 'base' THEN 100 WHEN 'max' THEN 2592000 WHEN 'jitter' THEN 1 END;
        IF most IS NULL THEN
            PERFORM djps_refuse('backoff.' || part.key, 'is not a field of this request', NULL);
        END IF;
        IF jsonb_typeof(part.value) <> 'number' OR NOT (part.value #>> '{}')::numeric BETWEEN least_value AND most THEN
            PERFORM djps_refuse('backoff.' || part.key, format('must be %s to %s', least_value, most), part.value::text);
        END IF;
    END LOOP;
    RETURN jsonb_strip_nulls(backoff);
END $$"""

#: The bounds of a queue (decision 53), judged from the rows as they are now and as this transaction has made them.
_CHECK_ROOM = """
CREATE FUNCTION djps_check_room(of_queue text, of_key text) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    bounds queues;
    waiting bigint;
    oldest float8;
BEGIN
    SELECT * INTO bounds FROM queues WHERE queues.name = of_queue;
    IF bounds.max_depth IS NOT NULL THEN
        SELECT count(*) INTO waiting FROM (
            (SELECT FROM jobs_living AS job WHERE job.status = 'queued' AND job.dispatched_at IS NULL AND job.queue = of_queue
              ORDER BY job.priority DESC, job.run_at LIMIT bounds.max_depth)
            UNION ALL
            (SELECT FROM jobs_living AS job WHERE job.status = 'queued' AND job.dispatched_at IS NOT NULL AND job.queue = of_queue
              ORDER BY job.dispatched_at LIMIT bounds.max_depth)) AS counted;
        IF waiting >= bounds.max_depth THEN
            PERFORM djps_refuse('queue', format('%L is full: its max_depth of %s jobs is reached', of_queue, bounds.max_depth), NULL, 'DJ503');
        END IF;
    END IF;
    IF bounds.key_max_depth IS NOT NULL AND of_key IS NOT NULL THEN
        SELECT count(*) INTO waiting FROM (
            SELECT FROM jobs_living AS job WHERE job.queue = of_queue AND job.key = of_key AND job.status = 'queued'
             ORDER BY job.run_at LIMIT bounds.key_max_depth) AS counted;
        IF waiting >= bounds.key_max_depth THEN
            PERFORM djps_refuse('key', format('%L of queue %L is full: the keys.max_depth of %s jobs is reached', of_key, of_queue, bounds.key_max_depth),
                                NULL, 'DJ429');
        END IF;
    END IF;
    IF bounds.max_age IS NOT NULL THEN
        SELECT coalesce(extract(epoch FROM clock_timestamp() - least(
            (SELECT min(due.run_at) FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
                SELECT job.run_at FROM jobs_living AS job
                 WHERE job.status = 'queued' AND job.dispatched_at IS NULL AND job.queue = of_queue AND job.priority = level AND job.run_at <= now()
                 ORDER BY job.run_at LIMIT 1) AS due),
            (SELECT min(due.run_at) FROM (
                SELECT job.run_at FROM jobs_living AS job
                 WHERE job.status = 'queued' AND job.dispatched_at IS NOT NULL AND job.queue = of_queue AND job.run_at <= now()
                 ORDER BY job.dispatched_at LIMIT 20000) AS due))), 0)::float8 INTO oldest;
        -- As over HTTP: it must be too old for some seconds, and the last look may remember that it was.
        IF oldest > bounds.max_age + 5 OR oldest > bounds.max_age / 2 AND EXISTS (
               SELECT FROM queue_looks AS look
                WHERE look.queue = of_queue AND look.too_old AND look.at > extract(epoch FROM clock_timestamp()) - 60) THEN
            PERFORM djps_refuse('queue', format('%L is full: its oldest due job has waited longer than its max_age of %s s', of_queue, bounds.max_age),
                                NULL, 'DJ503');
        END IF;
    END IF;
END $$"""

#: Which job owns an idempotency key: the one that shall, or the one that does. The key belongs to this transaction until it ends, and
#: another one that asks for it waits for that.
_TAKE_KEY = """
CREATE FUNCTION djps_take_key(wanted text, request bytea, new_id uuid, lasts float8) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    owner record;
BEGIN
    LOOP
        SELECT known.job_id, known.fingerprint, known.created_at INTO owner FROM idempotency_keys AS known
         WHERE known.key = wanted AND known.expires_at > now();
        IF FOUND THEN
            IF owner.fingerprint <> request THEN
                PERFORM djps_refuse('idempotency_key', format('%L was used with another request, for job %s', wanted, owner.job_id), NULL);
            END IF;
            IF NOT EXISTS (SELECT FROM jobs_living AS job WHERE job.id = owner.job_id)
               AND NOT EXISTS (SELECT FROM jobs AS job WHERE job.id = owner.job_id AND job.finished_at >= owner.created_at) THEN
                PERFORM djps_refuse('idempotency_key', format('%L was used for job %s, which was deleted for its age', wanted, owner.job_id),
                                    NULL, 'DJ410');
            END IF;
            RETURN owner.job_id;
        END IF;
        IF new_id IS NULL THEN
            RETURN NULL;
        END IF;
        INSERT INTO idempotency_keys AS taken (key, fingerprint, job_id, expires_at)
        VALUES (wanted, request, new_id, clock_timestamp() + make_interval(secs => lasts))
        ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id,
                    created_at = now(), expires_at = excluded.expires_at
              WHERE taken.expires_at <= now();
        IF FOUND THEN
            RETURN new_id;
        END IF;
        -- Another transaction took it while this one waited; what it has committed is seen now.
    END LOOP;
END $$"""

#: Which handler runs a job with this payload, as `Rules` choose it; raises where none does.
_HANDLER_OF = """
CREATE FUNCTION djps_handler_of(payload jsonb, rules submission_rules) RETURNS known_handlers LANGUAGE plpgsql AS $$
DECLARE
    named CONSTANT text := CASE WHEN jsonb_typeof(payload -> 'task') = 'string' THEN payload ->> 'task' END;
    found known_handlers;
BEGIN
    SELECT * INTO found FROM known_handlers AS known WHERE known.task = named;
    IF found.task IS NULL AND NOT (rules.only_known AND payload ? 'task') THEN
        SELECT * INTO found FROM known_handlers AS known WHERE known.task = rules.default_task;
    END IF;
    IF found.task IS NULL OR djps_is_of_another(found.queue) THEN
        PERFORM djps_refuse('payload.task', 'must name a registered handler (' || coalesce((
            SELECT string_agg(few.task, ', ' ORDER BY few.task) FROM (
                SELECT known.task FROM known_handlers AS known WHERE NOT djps_is_of_another(known.queue) ORDER BY known.task LIMIT 30) AS few), '') || ')',
            coalesce(payload ->> 'task', 'null'));
    END IF;
    RETURN found;
END $$"""

#: True if a queue is another tenant's own: jobs that come by this function are the default one's.
_IS_OF_ANOTHER = """
CREATE FUNCTION djps_is_of_another(of_queue text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN strpos(of_queue, '.') > 0 AND EXISTS (
        SELECT FROM tenants AS tenant WHERE tenant.id <> 1 AND tenant.slug = split_part(of_queue, '.', 1));
END $$"""

#: A new id, by the clock of now: version 7 of RFC 9562, from which lists and history tell its age.
_NEW_ID = """
CREATE FUNCTION djps_new_id() RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    bytes bytea := uuid_send(gen_random_uuid());
BEGIN
    bytes := overlay(bytes PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6);
    RETURN encode(set_byte(bytes, 6, (get_byte(bytes, 6) & 15) | 112), 'hex')::uuid;
END $$"""

#: The request in the form in which it is compared. A line feed stands between payload and options, where any were given.
_REQUEST = """
CREATE FUNCTION djps_request(payload jsonb, queue text, key text, priority int, run_at timestamptz, delay float8, max_retries int, backoff jsonb,
                             timeout float8, expires_at timestamptz, tags text[], callback_url text)
RETURNS bytea LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- In the order of their names.
    asked CONSTANT text := concat_ws(',',
        '"backoff":' || djps_canonical(backoff, true), '"callback_url":' || djps_json(callback_url), '"delay":' || djps_float(delay),
        '"expires_at":"' || djps_moment(expires_at) || '"', '"key":' || djps_json(key), '"max_retries":' || max_retries,
        '"priority":' || priority, '"queue":' || djps_json(queue), '"run_at":"' || djps_moment(run_at) || '"',
        '"tags":' || CASE WHEN cardinality(tags) > 0 THEN djps_canonical(to_jsonb(tags)) END, '"timeout":' || djps_float(timeout));
BEGIN
    RETURN sha256(convert_to(
        djps_canonical(payload) || CASE WHEN asked <> '' OR tags IS NOT NULL THEN E'\\n{' || asked || '}' ELSE '' END, 'UTF8'));
END $$"""

_SUBMIT = """
CREATE FUNCTION djps_submit(
    payload jsonb, queue text DEFAULT NULL, key text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    delay float8 DEFAULT NULL, max_retries int DEFAULT NULL, backoff jsonb DEFAULT NULL, timeout float8 DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL, tags text[] DEFAULT NULL, callback_url text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    "unique" jsonb DEFAULT NULL, traceparent text DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    rules submission_rules;
    handler known_handlers;
    own_id CONSTANT uuid := djps_new_id();
    owner uuid;
    request bytea;
    waits jsonb;
    place text;
    due timestamptz;
    labels text[];
BEGIN
    SELECT * INTO rules FROM submission_rules;
    IF rules.stamp IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'DJ503', MESSAGE = 'payload.task cannot be judged: no process of DJPS has said yet which handlers there are',
            HINT = 'A maintenance worker says it within a second after its start.';
    END IF;
    IF "unique" IS NOT NULL THEN
        PERFORM djps_refuse('unique', 'is not taken in a transaction of yours, which would hold its key: submit over HTTP', NULL);
    END IF;
    PERFORM djps_check_payload(payload, rules.max_payload_bytes);
    PERFORM djps_check_options(key, priority, run_at, delay, max_retries, timeout, expires_at, callback_url, idempotency_key, traceparent);
    IF tags IS NOT NULL THEN
        PERFORM djps_check_tags(tags);
    END IF;
    IF backoff IS NOT NULL THEN
        waits := djps_check_backoff(backoff);
    END IF;

    IF idempotency_key IS NOT NULL THEN
        -- The first of two equal requests may have come before a deploy that changed what is taken.
        request := djps_request(payload, queue, key, priority, run_at, delay, max_retries, waits, timeout, expires_at, tags, callback_url);
        owner := djps_take_key(idempotency_key, request, NULL, 0);
        IF owner IS NOT NULL THEN
            RETURN owner;
        END IF;
    END IF;

    handler := djps_handler_of(payload, rules);
    place := coalesce(queue, handler.queue);
    IF queue IS NOT NULL AND (queue <> ALL (rules.queues) OR djps_is_of_another(queue)) THEN
        PERFORM djps_refuse('queue', 'must be one that workers listen to (' || array_to_string(ARRAY(
            SELECT known FROM unnest(rules.queues) AS known WHERE NOT djps_is_of_another(known) ORDER BY known LIMIT 30), ', ') || ')', queue);
    END IF;
    IF idempotency_key IS NOT NULL THEN
        owner := djps_take_key(idempotency_key, request, own_id, rules.key_ttl);
        IF owner <> own_id THEN
            RETURN owner;
        END IF;
    END IF;
    IF EXISTS (SELECT FROM queues AS known WHERE known.name = place
                  AND (known.max_depth IS NOT NULL OR known.max_age IS NOT NULL OR known.key_max_depth IS NOT NULL)) THEN
        PERFORM djps_check_room(place, key);
    END IF;

    due := greatest(run_at, clock_timestamp() + make_interval(secs => coalesce(delay, 0)));
    labels := ARRAY(SELECT each.tag FROM unnest(coalesce(tags, '{}') || handler.tags) WITH ORDINALITY AS each(tag, at)
                     GROUP BY each.tag ORDER BY min(each.at));
    -- No lane and no message: the dispatcher finds it once it is committed, and files it where its queue has limits by then.
    INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, idempotency_key, fingerprint, request_id, traceparent,
                             priority, run_at, expires_at, backoff, tags, callback_url, key)
    VALUES (own_id, handler.task, payload, place, coalesce(max_retries, handler.max_retries, rules.max_retries),
            coalesce(timeout, handler.timeout, rules.timeout), idempotency_key,
            coalesce(request, sha256(convert_to(payload::text, 'UTF8'))),
            -- No request of HTTP can be called so: by this its worker knows that the handler's model was not asked.
            'sql@' || pg_current_xact_id()::text, traceparent, coalesce(priority, handler.priority, 5), due,
            coalesce(expires_at, due + make_interval(secs => handler.expires_in)),
            CASE WHEN backoff IS NULL THEN handler.backoff ELSE waits END, labels, callback_url, key);
    INSERT INTO uncounted_jobs (job_id) VALUES (own_id);
    RETURN own_id;
END $$"""

_SIGNATURES = (
    "djps_submit",
    "djps_request",
    "djps_handler_of",
    "djps_is_of_another",
    "djps_new_id",
    "djps_take_key",
    "djps_check_room",
    "djps_check_backoff",
    "djps_check_tags",
    "djps_check_options",
    "djps_check_payload",
    "djps_printable",
    "djps_moment",
    "djps_canonical",
    "djps_float",
    "djps_json",
    "djps_refuse",
)


def upgrade() -> None:
    """Applies this change."""
    op.execute("""
        CREATE TABLE known_handlers (
            task text PRIMARY KEY, queue text NOT NULL, max_retries int, timeout float8, priority smallint, backoff jsonb,
            tags text[] NOT NULL DEFAULT '{}', expires_in float8, has_model boolean NOT NULL DEFAULT false)""")
    op.execute("""
        CREATE TABLE submission_rules (
            one boolean PRIMARY KEY DEFAULT true, stamp text NOT NULL, max_payload_bytes int NOT NULL, max_retries int NOT NULL,
            timeout float8 NOT NULL, key_ttl float8 NOT NULL, default_task text NOT NULL, only_known boolean NOT NULL,
            queues text[] NOT NULL, told_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT submission_rules_one CHECK (one))""")
    op.execute("CREATE TABLE uncounted_jobs (job_id uuid PRIMARY KEY)")
    for function in (
        *(
            _REFUSE,
            _JSON,
            _FLOAT,
            _CANONICAL,
            _MOMENT,
            _PRINTABLE,
            _CHECK_PAYLOAD,
            _CHECK_OPTIONS,
            _CHECK_TAGS,
        ),
        *(_CHECK_BACKOFF, _CHECK_ROOM, _TAKE_KEY, _NEW_ID, _IS_OF_ANOTHER, _HANDLER_OF, _REQUEST, _SUBMIT),
    ):
        op.execute(function)
    # Who calls it may have objects of its own by the names of ours: temporary ones would come first, were they not named last.
    op.execute("""
        DO $$ BEGIN
            EXECUTE format('ALTER FUNCTION djps_submit SET search_path = pg_catalog, %I, pg_temp', current_schema());
        END $$""")
    for name in _SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")


def downgrade() -> None:
    """Takes this change back: no more jobs come by a transaction of the caller's own."""
    for name in _SIGNATURES:
        op.execute(f"DROP FUNCTION {name}")
    op.drop_table("uncounted_jobs")
    op.drop_table("submission_rules")
    op.drop_table("known_handlers")
