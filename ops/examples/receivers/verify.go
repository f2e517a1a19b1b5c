// Checks the signature of a callback. Needs Go 1.19 or newer and no module.
//
// How to run it: as CGI gives a request, its headers in the environment and its body on stdin. In a server of yours call
// verify with the headers and the bytes of the body as they came, before they are parsed.
//
//	CALLBACK_SECRET=whsec_... HTTP_WEBHOOK_ID=... HTTP_WEBHOOK_TIMESTAMP=... HTTP_WEBHOOK_SIGNATURE=... \
//	    go run ops/examples/receivers/verify.go < body.json
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// True if DJPS signed this body less than five minutes ago. Keep the ids that you have done: one that comes again is a replay.
func verify(secret, id, timestamp, signatures string, body []byte) bool {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	age := time.Since(time.Unix(seconds, 0))
	if err != nil || id == "" || age >= 5*time.Minute || age <= -5*time.Minute {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	mine := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, theirs := range strings.Fields(signatures) {
		if hmac.Equal([]byte(theirs), []byte(mine)) {
			return true
		}
	}
	return false
}

func main() {
	body, err := io.ReadAll(os.Stdin)
	id, timestamp := os.Getenv("HTTP_WEBHOOK_ID"), os.Getenv("HTTP_WEBHOOK_TIMESTAMP")
	if err != nil || !verify(os.Getenv("CALLBACK_SECRET"), id, timestamp, os.Getenv("HTTP_WEBHOOK_SIGNATURE"), body) {
		fmt.Fprintln(os.Stderr, "not signed by DJPS, or too old")
		os.Exit(1)
	}
	var told struct{ Data struct{ ID, Status string } }
	if err := json.Unmarshal(body, &told); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(told.Data.ID, told.Data.Status)
}
