-- The jobs with these tags, `limit` of them at most and in no order: their index has none; each with when it ended, or with now.
-- None of them ended before `ended_from`. Reads `jobs_tags` of each day since then; locks nothing.
SELECT id, coalesce(finished_at, now()) FROM jobs
 WHERE tags <> '{}' AND tags @> CAST(:tags AS text[]) AND (finished_at IS NULL OR finished_at >= :ended_from)
 LIMIT :limit;
