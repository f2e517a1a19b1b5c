-- The jobs with these tags, `limit` of them at most and in no order: their index has none. Reads `jobs_tags`; locks nothing.
SELECT id FROM jobs WHERE tags <> '{}' AND tags @> CAST(:tags AS text[]) LIMIT :limit;
