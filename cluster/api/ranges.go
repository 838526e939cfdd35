package api

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// rangesMax bounds the ranges of one request. Each is read by itself and costs whole segments.
const rangesMax = 8

// byteRange is n bytes at off.
type byteRange struct{ off, n int64 }

func (b byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.off, b.off+b.n-1, size)
}

// rangesOf returns what a request asks for of something of size bytes, nil for all of it. A range is of
// the bytes that If-Range names: a date, which is not exact, and a weak tag name none.
func rangesOf(r *http.Request, tags []string, size int64) ([]byteRange, error) {
	if r.Method != http.MethodGet || len(r.Header["Range"]) != 1 {
		return nil, nil
	}
	if same := r.Header["If-Range"]; same != nil &&
		(len(same) != 1 || !slices.Contains(tags, strings.Trim(same[0], " \t"))) {
		return nil, nil
	}
	return parseRange(r.Header.Get("Range"), size)
}

// parseRange reads a Range (RFC 9110, section 14.2). What it is free to leave out is left out, and all
// is sent: other units, what is malformed, more than rangesMax, and ranges that overlap so much that all
// is less. A KindRange means that nothing of it is there.
func parseRange(header string, size int64) ([]byteRange, error) {
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.Trim(unit, " \t"), "bytes") {
		return nil, nil
	}
	var ranges []byteRange
	specs, sum := 0, int64(0)
	for spec := range strings.SplitSeq(set, ",") {
		if spec = strings.Trim(spec, " \t"); spec == "" { // lists may have empty elements
			continue
		}
		b, ok := parseSpec(spec, size)
		if specs++; !ok || specs > rangesMax {
			return nil, nil
		}
		if b.n > 0 {
			ranges = append(ranges, b)
			sum += b.n
		}
	}
	switch {
	case specs == 0 || sum > size:
		return nil, nil
	case len(ranges) == 0:
		return nil, image.Errorf(image.KindRange, "no byte of the Range is in the %d that there are", size).
			WithHint("ask for bytes from 0 to " + strconv.FormatInt(size-1, 10))
	}
	return ranges, nil
}

// parseSpec reads one range, first-last, first- or -suffix, as far as it is in size bytes. ok reports
// whether it is one.
func parseSpec(spec string, size int64) (b byteRange, ok bool) {
	first, last, dash := strings.Cut(spec, "-")
	if !dash || !digits(first) || !digits(last) || first == "" && last == "" {
		return b, false
	}
	if first == "" {
		n := min(number(last), size)
		return byteRange{size - n, n}, true
	}
	from, to := number(first), size-1
	if last != "" {
		if cmpNumbers(first, last) > 0 {
			return b, false
		}
		to = min(to, number(last))
	}
	if from >= size {
		return b, true
	}
	return byteRange{from, to - from + 1}, true
}

func digits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// number reads digits; a number beyond all sizes is the largest.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// cmpNumbers compares digits of any length.
func cmpNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// serve answers a read with content, or the ranges of it that are asked for, and closes it. tags are its
// entity tags, header what a success has. An error means that nothing was sent, not even a header: later
// the connection is cut, for the length was promised.
func (h *Handler) serve(
	w http.ResponseWriter, r *http.Request, c wire.Content, cond image.Conditions, tags []string,
	header http.Header,
) (sent int64, err error) {
	defer c.Close()
	if err = cond.Required(tags); err != nil {
		h.fail(w, r, err)
		return 0, nil
	}
	if cond.Excluded(tags) {
		notModified(w, header)
		return 0, nil
	}
	size := c.Size()
	ranges, err := rangesOf(r, tags, size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		h.fail(w, r, err)
		return 0, nil
	}
	a := answer{
		header: header, size: size, status: http.StatusOK, length: size, parts: []byteRange{{0, size}},
	}
	if ranges != nil {
		a.cut(ranges)
	}
	out := &countedWriter{ResponseWriter: w, count: &h.tx}
	if r.Method == http.MethodHead {
		a.begin(out)
		return 0, nil
	}
	request, began := trace.From(r.Context()), time.Now()
	defer func() {
		request.Add(trace.Answer, out.took)
		request.Add(trace.Open, time.Since(began)-out.took)
	}()
	c.Section(a.parts[0].off, a.parts[0].n)
	first := bufio.NewReader(c)
	if _, err := first.Peek(1); err != nil && err != io.EOF {
		return 0, err
	}
	a.begin(out)
	if a.write(out, first, c) != nil {
		panic(http.ErrAbortHandler)
	}
	return a.length, nil
}

// notModified answers that the client has what it asks for.
func notModified(w http.ResponseWriter, header http.Header) {
	maps.Copy(w.Header(), header)
	w.Header().Del("Content-Type") // of a body that is not sent
	w.WriteHeader(http.StatusNotModified)
}

// answer is the form that content is sent in.
type answer struct {
	header   http.Header
	size     int64 // of all
	status   int
	length   int64 // of the body
	parts    []byteRange
	boundary string // between several parts
}

// cut makes it a partial answer.
func (a *answer) cut(ranges []byteRange) {
	a.status, a.parts, a.length = http.StatusPartialContent, ranges, 0
	if len(ranges) == 1 {
		a.length = ranges[0].n
		return
	}
	var overhead countingWriter
	mw := multipart.NewWriter(&overhead)
	a.boundary = mw.Boundary()
	for _, b := range ranges {
		mw.CreatePart(a.partHeader(b))
		a.length += b.n
	}
	mw.Close()
	a.length += int64(overhead)
}

func (a *answer) partHeader(b byteRange) textproto.MIMEHeader {
	return textproto.MIMEHeader{
		"Content-Type": a.header["Content-Type"], "Content-Range": {b.contentRange(a.size)},
	}
}

// begin sends the header.
func (a *answer) begin(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Length", strconv.FormatInt(a.length, 10))
	if a.status == http.StatusPartialContent && a.boundary == "" {
		w.Header().Set("Content-Range", a.parts[0].contentRange(a.size))
	}
	if a.boundary != "" {
		w.Header().Set("Content-Type", "multipart/byteranges; boundary="+a.boundary)
	}
	w.WriteHeader(a.status)
}

// write sends the parts, the first of which src has.
func (a *answer) write(w io.Writer, src io.Reader, c wire.Content) error {
	mw := multipart.NewWriter(w)
	if a.boundary != "" {
		mw.SetBoundary(a.boundary)
	}
	for i, b := range a.parts {
		if i > 0 {
			c.Section(b.off, b.n)
			src = c
		}
		if a.boundary != "" {
			if _, err := mw.CreatePart(a.partHeader(b)); err != nil {
				return err
			}
		}
		n, err := io.Copy(w, src)
		if err == nil && n < b.n {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	if a.boundary == "" {
		return nil
	}
	return mw.Close()
}

// countingWriter counts what it is given.
type countingWriter int64

func (c *countingWriter) Write(p []byte) (int, error) {
	*c += countingWriter(len(p))
	return len(p), nil
}
