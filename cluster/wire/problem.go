package wire

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"imgcluster/cluster/image"
)

// The media types of documents and of problems (RFC 9457).
const (
	DocumentType = "application/json"
	ProblemType  = "application/problem+json"
)

// problemBytesMax bounds the problem that is read of an answer.
const problemBytesMax = 64 << 10

// requestInstance begins the name of a request in a problem; its ID follows.
const requestInstance = "urn:imgcluster:request:"

// Problem sets the header of an answer that reports err, and returns its body. What may succeed a little
// later has a Retry-After. Where the header has the request's ID, the problem has it too.
func Problem(h http.Header, err error) (p image.Problem, body []byte) {
	p = image.AsProblem(err)
	if p.RetryAfter == 0 && p.Code.Temporary() {
		p.RetryAfter = 1
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Code == image.KindUnauthorized {
		h["Www-Authenticate"] = []string{`Bearer realm="imgcluster"`, `Basic realm="imgcluster", charset="UTF-8"`}
	}
	if id := h.Get(RequestField); id != "" {
		p.Instance = requestInstance + id
	}
	body, _ = json.Marshal(p) // cannot fail: texts and numbers
	body = append(body, '\n')
	h.Set("Content-Type", ProblemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	return p, body
}

// ReadProblem returns the error that a node answered with, nil when the answer is not one of a node's
// problems, but a proxy's for example. The answer to a HEAD has no body: then the error has no detail.
func ReadProblem(resp *http.Response) *image.Error {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != ProblemType {
		return nil
	}
	var p image.Problem
	if resp.Request != nil && resp.Request.Method == http.MethodHead {
		p.Code = KindOfStatus(resp.StatusCode)
	} else {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, problemBytesMax)) // what came is enough
		if json.Unmarshal(text, &p) != nil || p.Code == "" {
			return nil
		}
	}
	e := p.Err()
	return e.WithRetry(max(e.RetryAfter, RetryAfter(resp.Header)))
}

// RetryAfter reads the header field's form in seconds, the one that nodes use; 0 when there is none.
func RetryAfter(h http.Header) time.Duration {
	s, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// KindOfStatus returns the kind of an answer that has a status alone.
func KindOfStatus(status int) image.Kind {
	for _, k := range []image.Kind{
		image.KindUnauthorized, image.KindForbidden, image.KindNotFound, image.KindConflict,
		image.KindLengthRequired, image.KindExists,
		image.KindTooLarge,
		image.KindOverload, image.KindNoQuorum, image.KindDiskFull,
	} {
		if k.Status() == status {
			return k
		}
	}
	if status >= 400 && status < 500 {
		return image.KindInvalid
	}
	return image.KindInternal
}
