-- The record of acts.
--
-- Guard: `add` is in the transaction of the act, so there is never one without the other. Rows are only added: triggers refuse the rest.
-- Locks: none.

-- name: add
INSERT INTO audit_events (event, success, actor_kind, actor_id, actor_name, address, request_id, target_kind, target_id, matched, changed,
                          reason, details, tenant_id)
VALUES (:event, :success, :actor_kind, :actor_id, :actor_name, :address, :request_id, :target_kind, :target_id, :matched, :changed,
        :reason, CAST(:details AS jsonb), CAST(:tenant AS int));

-- name: page
-- From the newest on; `last` is the id of the last one of the page before.
SELECT id, at, event, success, actor_kind, actor_id, actor_name, address, request_id, target_kind, target_id, matched, changed, reason, details,
       (SELECT slug FROM tenants WHERE tenants.id = audit_events.tenant_id)
  FROM audit_events
 WHERE (CAST(:event AS text) IS NULL OR event = :event)
   AND (CAST(:actor_id AS text) IS NULL OR (actor_kind = :actor_kind AND actor_id = :actor_id))
   AND (CAST(:target_id AS text) IS NULL OR (target_kind = :target_kind AND target_id = :target_id))
   AND (CAST(:after AS timestamptz) IS NULL OR at >= :after)
   AND (CAST(:before AS timestamptz) IS NULL OR at < :before)
   AND tenant_id = :tenant  -- tenant
   AND tenant_id IS NULL  -- default tenant
   AND (CAST(:last AS bigint) IS NULL OR id < :last)
 ORDER BY id DESC LIMIT :limit;
