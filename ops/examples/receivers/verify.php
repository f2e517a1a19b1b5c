<?php
// Checks the signature of a callback. Needs PHP 8.1 or newer and no extension.
//
// How to run it: as CGI gives a request, its headers in the environment and its body on stdin. Behind a web server take
// them from $_SERVER and php://input.
//
//     CALLBACK_SECRET=whsec_... HTTP_WEBHOOK_ID=... HTTP_WEBHOOK_TIMESTAMP=... HTTP_WEBHOOK_SIGNATURE=... \
//         php ops/examples/receivers/verify.php < body.json

declare(strict_types=1);

/** True if DJPS signed this body less than five minutes ago. Keep the ids that you have done: one that comes again is a replay. */
function verify(string $secret, string $id, string $timestamp, string $signatures, string $body): bool
{
    if ($id === '' || !preg_match('/^\d+$/D', $timestamp) || abs(time() - (int) $timestamp) >= 300) {
        return false;
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret));
    $mine = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $signatures) as $theirs) {
        if (hash_equals($mine, $theirs)) {
            return true;
        }
    }
    return false;
}

$headers = array_map(fn ($name) => (string) getenv("HTTP_WEBHOOK_$name"), ['ID', 'TIMESTAMP', 'SIGNATURE']);
$body = file_get_contents('php://stdin');
if (!verify((string) getenv('CALLBACK_SECRET'), ...[...$headers, $body])) {
    fwrite(STDERR, "not signed by DJPS, or too old\n");
    exit(1);
}
$told = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
echo "{$told['data']['id']} {$told['data']['status']}\n";
