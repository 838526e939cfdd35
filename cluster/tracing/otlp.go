package tracing

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/trace"
)

// answerMax bounds what is read of a collector's answer, which says nothing that is used.
const answerMax = 64 << 10

// collector is sent spans in the JSON of OTLP 1.x over HTTP (opentelemetry.io/docs/specs/otlp). The libraries
// for that cost a node 3 MiB of memory, or with gRPC 6, traced or not.
type collector struct {
	url      string
	client   *http.Client
	resource []keyValue
}

func newCollector(o Options) *collector {
	return &collector{
		url: strings.TrimRight(o.Endpoint, "/") + "/v1/traces",
		client: &http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
		resource: []keyValue{
			text("service.name", "imgcluster"), text("service.namespace", o.Cluster),
			{"service.instance.id", value{Int: strconv.FormatUint(uint64(o.Node), 10)}},
			text("service.version", o.Version),
		},
	}
}

func (c *collector) send(ctx context.Context, spans []trace.Span) error {
	body, err := json.Marshal(c.encode(spans))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, answerMax)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", c.url, resp.Status)
	}
	return nil
}

// The document, as far as it is used. IDs are in hexadecimal, and numbers of 64 bits are texts.
type (
	document struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   attributed   `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	attributed struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	span struct {
		TraceID           string     `json:"traceId"`
		SpanID            string     `json:"spanId"`
		ParentSpanID      string     `json:"parentSpanId,omitempty"`
		Name              string     `json:"name"`
		Kind              int        `json:"kind"`
		StartTimeUnixNano string     `json:"startTimeUnixNano"`
		EndTimeUnixNano   string     `json:"endTimeUnixNano"`
		Attributes        []keyValue `json:"attributes"`
		Status            status     `json:"status,omitzero"`
	}
	status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String string  `json:"stringValue,omitempty"`
		Int    string  `json:"intValue,omitempty"`
		Double float64 `json:"doubleValue,omitempty"`
	}
)

// Numbers of OTLP.
const (
	kindInternal = 1
	kindServer   = 2
	statusError  = 2
)

func (c *collector) encode(spans []trace.Span) document {
	list := make([]span, len(spans))
	for i, s := range spans {
		x := span{
			TraceID: hex.EncodeToString(s.Trace[:]), SpanID: hex.EncodeToString(s.ID[:]), Name: s.Name,
			Kind: kindInternal, StartTimeUnixNano: nanoseconds(s.Began), EndTimeUnixNano: nanoseconds(s.Ended),
		}
		if s.Parent != [8]byte{} {
			x.ParentSpanID = hex.EncodeToString(s.Parent[:])
		}
		if s.Request != "" {
			x.Kind = kindServer
			x.Attributes = append(x.Attributes, text("request", s.Request))
		} else {
			x.Attributes = append(x.Attributes, keyValue{"busy_s", value{Double: s.Busy.Seconds()}})
		}
		if s.Failed != "" {
			x.Status = status{statusError, s.Failed}
		}
		list[i] = x
	}
	return document{[]resourceSpans{{
		attributed{c.resource}, []scopeSpans{{scope{"imgcluster"}, list}},
	}}}
}

func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func text(key, v string) keyValue { return keyValue{key, value{String: v}} }
