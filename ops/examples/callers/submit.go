// Submits a job once only, waits for its end and prints its result. Needs Go 1.19 or newer and no module.
//
// How to run it, beside `python3 -m ops up`:
//
//	DJPS_URL=http://127.0.0.1:8000 go run ops/examples/callers/submit.go '{"task": "noop"}' order-17
//
// The second word is the idempotency key. Make it of your own record, such as the order's number, so that it is the same
// when your program starts again.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

// How long the API is asked to wait for the job's end, and how long a job may take in all.
const wait, patience = 20 * time.Second, 10 * time.Minute

// What goes before each try.
var pauses = []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Answers after which the same request may succeed.
var passing = map[int]bool{409: true, 429: true, 500: true, 502: true, 503: true, 504: true}

// An answer: a job, or what is wrong (problem+json).
type answer struct {
	ID        string
	Status    json.RawMessage // a job's status is text, a problem's a number
	Result    json.RawMessage
	LastError string `json:"last_error"`
	Title     string
	Detail    string
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// Makes one call; returns the status, the time of Retry-After, and the JSON that came.
func call(method, path, key string, body []byte, limit time.Duration) (int, time.Duration, answer, error) {
	var came answer
	request, err := http.NewRequest(method, setting("DJPS_URL", "http://127.0.0.1:8000")+path, bytes.NewReader(body))
	if err != nil {
		return 0, 0, came, err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := (&http.Client{Timeout: limit}).Do(request)
	if err != nil {
		return 0, 0, came, err
	}
	defer response.Body.Close()
	after, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	err = json.NewDecoder(response.Body).Decode(&came)
	return response.StatusCode, time.Duration(after) * time.Second, came, err
}

// Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET.
func ask(method, path, key string, body []byte, limit time.Duration) (answer, error) {
	var said error
	var after time.Duration
	for _, pause := range pauses {
		if after > time.Minute {
			after = time.Minute
		}
		if after > pause {
			pause = after
		}
		time.Sleep(pause)
		status, retryAfter, came, err := call(method, path, key, body, limit)
		if err != nil {
			// No answer, half of one, or one that is not JSON: the request may have been carried out.
			said, after = fmt.Errorf("no answer: %w", err), 0
			continue
		}
		if status < 300 {
			return came, nil
		}
		said, after = fmt.Errorf("%d %s: %s", status, came.Title, came.Detail), retryAfter
		if !passing[status] {
			break
		}
	}
	return answer{}, said
}

// Submits a job. The same body under the same key makes one job, however often it is sent.
func submit(payload json.RawMessage, key string, limit time.Duration) (answer, error) {
	body, err := json.Marshal(map[string]json.RawMessage{"payload": payload})
	if err != nil {
		return answer{}, err
	}
	return ask("POST", "/jobs", key, body, limit)
}

// Waits until a job is final; returns its result.
func result(job answer, limit time.Duration) (json.RawMessage, error) {
	path := fmt.Sprintf("/jobs/%s?wait=%d", job.ID, wait/time.Second)
	status, err := string(job.Status), error(nil)
	for end := time.Now().Add(patience); (status == `"queued"` || status == `"processing"`) && time.Now().Before(end); {
		if job, err = ask("GET", path, "", nil, wait+limit); err != nil {
			return nil, err
		}
		status = string(job.Status)
	}
	if status != `"completed"` {
		return nil, fmt.Errorf("job %s is %s: %s", job.ID, status, job.LastError)
	}
	return job.Result, nil
}

func main() {
	seconds, err := strconv.ParseFloat(setting("DJPS_TIMEOUT", "10"), 64)
	var job answer
	var came json.RawMessage
	limit := time.Duration(seconds * float64(time.Second))
	if err == nil {
		job, err = submit(json.RawMessage(os.Args[1]), os.Args[2], limit)
	}
	if err == nil {
		came, err = result(job, limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(came))
}
