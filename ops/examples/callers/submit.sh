#!/usr/bin/env bash
# Submits a job once only, waits for its end and prints it. Needs bash and curl.
#
# How to run it, beside `python3 -m ops up`:
#
#     DJPS_URL=http://127.0.0.1:8000 bash ops/examples/callers/submit.sh '{"task": "noop"}' order-17
#
# The second word is the idempotency key. Make it of your own record, such as the order's number, so that it is the same
# when your script starts again. Where there is jq, `jq -r .status` is the better `first`.
set -u

api=${DJPS_URL:-http://127.0.0.1:8000}
# Seconds that a call may take, and seconds that the API is asked to wait for the job's end.
timeout=${DJPS_TIMEOUT:-10} wait=20
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET.
ask() {
    local limit=$1 status after pause
    shift
    for pause in 0.5 1 2 ''; do
        after=0
        if status=$(curl -sS --max-time "$limit" -D "$folder/head" -o "$folder/body" -w '%{http_code}' "$@"); then
            case $status in
                2??) return 0 ;;
                409 | 429 | 5??) after=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]\{1,4\}\).*/\1/p' "$folder/head") ;;
                *) break ;;
            esac
        else # No answer, or half of one: the request may have been carried out.
            status='no answer'
        fi
        [ "${after:-0}" -le 60 ] || after=60
        [ -z "$pause" ] || sleep "$([ "${after:-0}" -gt "${pause%.*}" ] && echo "$after" || echo "$pause")"
    done
    echo "$status: $(cat "$folder/body" 2>/dev/null)" >&2
    return 1
}

# The first value of a text field in what came.
first() { grep -o "\"$1\": *\"[^\"]*\"" "$folder/body" | head -1 | cut -d'"' -f4; }

# The same body under the same key makes one job, however often it is sent.
ask "$timeout" "$api/jobs" -H 'Content-Type: application/json' -H "Idempotency-Key: $2" -d "{\"payload\": $1}" || exit 1
id=$(first id)

for _ in $(seq 30); do
    case $(first status) in queued | processing) ;; *) break ;; esac
    ask "$((wait + ${timeout%.*}))" "$api/jobs/$id?wait=$wait" || exit 1
done
cat "$folder/body"
[ "$(first status)" = completed ]
