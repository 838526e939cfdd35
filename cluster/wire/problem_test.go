package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

func answered(status int, media, body string) *http.Response {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	io.WriteString(w, body)
	return w.Result()
}

// TestProblems: the other end reads the error that a node sends, but for its cause.
func TestProblems(t *testing.T) {
	plain := image.Errorf(image.KindTooLarge, "too %s", "large")
	for _, x := range []struct {
		err   error
		kind  image.Kind
		hint  string
		after time.Duration
	}{
		{plain, image.KindTooLarge, "", 0},
		{
			image.Errorf(image.KindExists, "x: %w", io.EOF).WithHint("do \"this\""), image.KindExists,
			`do "this"`, 0,
		},
		{
			image.Errorf(image.KindNoQuorum, "x").WithHint("wait").WithRetry(1500 * time.Millisecond),
			image.KindNoQuorum, "wait", 2 * time.Second,
		},
		{image.Errorf(image.KindOverload, "x"), image.KindOverload, "", time.Second},
		{errors.New("of this node alone"), image.KindInternal, "see the node's log", 0},
		{image.Errorf("of-a-newer-node", "x"), "of-a-newer-node", "", 0},
	} {
		w := httptest.NewRecorder()
		p, body := Problem(w.Header(), x.err)
		w.WriteHeader(p.Status)
		w.Write(body)
		got := ReadProblem(w.Result())
		if got == nil || got.Kind != x.kind || got.Detail != p.Detail || got.Hint() != x.hint ||
			got.RetryAfter != x.after || got.Err != nil {
			t.Errorf("%v became %+v", x.err, got)
		}
		if bytes.Contains(body, []byte("of this node alone")) ||
			(w.Header().Get("Retry-After") != "") != (x.after > 0) {
			t.Errorf("%v: %v %s", x.err, w.Header(), body)
		}
	}
	for _, resp := range []*http.Response{
		answered(503, "text/html", "busy"), answered(503, "application/json", `{"code":"exists"}`),
		answered(400, ProblemType, `{"code":`),
		answered(400, ProblemType, "{}"), answered(400, "", ""),
	} {
		if got := ReadProblem(resp); got != nil {
			t.Errorf("%s is the problem %+v", resp.Status, got)
		}
	}
	longer := answered(503, ProblemType+"; charset=utf-8", `{"code":"aborted","retry_after_s":1}`)
	longer.Header.Set("Retry-After", "7")
	if got := ReadProblem(longer); got == nil || got.Kind != image.KindAborted ||
		got.RetryAfter != 7*time.Second {
		t.Errorf("%+v", got)
	}
	head := answered(404, ProblemType, "")
	head.Request = httptest.NewRequest(http.MethodHead, "/", nil)
	if got := ReadProblem(head); got == nil || got.Kind != image.KindNotFound || got.Detail != "" {
		t.Errorf("of HEAD: %+v", got)
	}
}

func TestKindOfStatus(t *testing.T) {
	for status, want := range map[int]image.Kind{
		404: image.KindNotFound, 409: image.KindConflict, 412: image.KindExists, 429: image.KindOverload,
		503: image.KindNoQuorum, 507: image.KindDiskFull,
		418: image.KindInvalid, 502: image.KindInternal,
	} {
		if got := KindOfStatus(status); got != want {
			t.Errorf("%d is %s, not %s", status, got, want)
		}
	}
}
