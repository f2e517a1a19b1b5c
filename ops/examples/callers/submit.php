<?php
// Submits a job once only, waits for its end and prints its result. Needs PHP 8.1 or newer and no extension.
//
// How to run it, beside `python3 -m ops up`:
//
//     DJPS_URL=http://127.0.0.1:8000 php ops/examples/callers/submit.php '{"task": "noop"}' order-17
//
// The second word is the idempotency key. Make it of your own record, such as the order's number, so that it is the same
// when your program starts again.

declare(strict_types=1);

define('API', getenv('DJPS_URL') ?: 'http://127.0.0.1:8000');
// Seconds that a call may be silent, and seconds that the API is asked to wait for the job's end.
define('TIMEOUT', (float) (getenv('DJPS_TIMEOUT') ?: 10));
const WAIT = 20;
// Seconds between tries, and how long a job may take in all.
const PAUSES = [0.5, 1, 2];
const PATIENCE = 600;
// Answers after which the same request may succeed.
const PASSING = [409, 429, 500, 502, 503, 504];

/** Makes one call; returns status, the seconds of `Retry-After`, and the JSON that came, null if none did. */
function call(string $path, array $options, float $timeout): array
{
    $options += ['timeout' => $timeout, 'ignore_errors' => true];
    $stream = @fopen(API . $path, 'r', false, stream_context_create(['http' => $options]));
    if ($stream === false) {
        return [0, 0, null];
    }
    stream_set_timeout($stream, (int) ceil($timeout));
    $headers = implode("\n", stream_get_meta_data($stream)['wrapper_data']);
    preg_match('~^HTTP/\S+ (\d+)~', $headers, $status);
    preg_match('~^Retry-After: *(\d+)~mi', $headers, $after);
    return [(int) $status[1], (int) ($after[1] ?? 0), json_decode(stream_get_contents($stream), true)];
}

/** Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET. */
function ask(string $path, array $options = [], float $timeout = TIMEOUT): array
{
    foreach ([...PAUSES, null] as $pause) {
        [$status, $after, $answer] = call($path, $options, $timeout);
        if ($answer === null) {
            // No answer, half of one, or one that is not JSON: the request may have been carried out.
            $said = 'no answer: ' . (error_get_last()['message'] ?? 'not JSON');
        } elseif ($status < 300) {
            return $answer;
        } else {
            $said = "$status {$answer['title']}: {$answer['detail']}";
            if (!in_array($status, PASSING, true)) {
                break;
            }
        }
        if ($pause !== null) {
            usleep((int) (1e6 * max($pause, min($after, 60))));
        }
    }
    throw new RuntimeException($said);
}

/** Submits a job. The same body under the same key makes one job, however often it is sent. */
function submit(object $payload, string $key): array
{
    return ask('/jobs', [
        'method' => 'POST',
        'header' => ['Content-Type: application/json', "Idempotency-Key: $key"],
        'content' => json_encode(['payload' => $payload], JSON_THROW_ON_ERROR),
    ]);
}

/** Waits until a job is final; returns its result. */
function wait(array $job): mixed
{
    $end = microtime(true) + PATIENCE;
    while (in_array($job['status'], ['queued', 'processing'], true) && microtime(true) < $end) {
        $job = ask("/jobs/{$job['id']}?wait=" . WAIT, [], WAIT + TIMEOUT);
    }
    if ($job['status'] !== 'completed') {
        throw new RuntimeException("job {$job['id']} is {$job['status']}: {$job['last_error']}");
    }
    return $job['result'];
}

try {
    $payload = json_decode($argv[1], false, 64, JSON_THROW_ON_ERROR);
    echo json_encode(wait(submit($payload, $argv[2])), JSON_THROW_ON_ERROR), "\n";
} catch (RuntimeException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
