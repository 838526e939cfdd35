package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// answerMax bounds what is read of a collector's answer, which says nothing that is used.
const answerMax = 64 << 10

// exporter sends spans in the JSON of OTLP 1.x over HTTP (opentelemetry.io/docs/specs/otlp). The library's
// exporter does so in protobuf, for which it has all of gRPC: 5 MB more of a program, traced or not.
type exporter struct {
	url    string
	client *http.Client
}

func newExporter(endpoint string) *exporter {
	return &exporter{strings.TrimRight(endpoint, "/") + "/v1/traces", &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	text, err := json.Marshal(encode(spans))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, answerMax)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", e.url, resp.Status)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// The document, as far as it is used. IDs are in hexadecimal, and numbers of 64 bits are texts.
type (
	document struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource struct {
			Attributes []keyValue `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	scopeSpans struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []span `json:"spans"`
	}
	span struct {
		TraceID           string     `json:"traceId"`
		SpanID            string     `json:"spanId"`
		ParentSpanID      string     `json:"parentSpanId,omitempty"`
		TraceState        string     `json:"traceState,omitempty"`
		Name              string     `json:"name"`
		Kind              int        `json:"kind"`
		StartTimeUnixNano string     `json:"startTimeUnixNano"`
		EndTimeUnixNano   string     `json:"endTimeUnixNano"`
		Attributes        []keyValue `json:"attributes,omitempty"`
		Status            status     `json:"status,omitzero"`
	}
	status struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	}
)

// statusError is the code of a status in OTLP; the library's has another number.
const statusError = 2

// encode returns spans as a document. All are of one resource and one scope.
func encode(spans []sdk.ReadOnlySpan) (d document) {
	var of resourceSpans
	var scope scopeSpans
	for i, s := range spans {
		if i == 0 {
			of.Resource.Attributes = attributes(s.Resource().Attributes())
			scope.Scope.Name = s.InstrumentationScope().Name
		}
		x := span{
			TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(),
			TraceState: s.SpanContext().TraceState().String(), Name: s.Name(), Kind: int(s.SpanKind()),
			StartTimeUnixNano: nanoseconds(s.StartTime()), EndTimeUnixNano: nanoseconds(s.EndTime()),
			Attributes: attributes(s.Attributes()),
		}
		if s.Parent().HasSpanID() {
			x.ParentSpanID = s.Parent().SpanID().String()
		}
		if s.Status().Code == codes.Error {
			x.Status = status{statusError, s.Status().Description}
		}
		scope.Spans = append(scope.Spans, x)
	}
	of.ScopeSpans = []scopeSpans{scope}
	d.ResourceSpans = []resourceSpans{of}
	return d
}

func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func attributes(from []attribute.KeyValue) (list []keyValue) {
	for _, a := range from {
		var v any
		switch a.Value.Type() {
		case attribute.INT64:
			v = map[string]string{"intValue": strconv.FormatInt(a.Value.AsInt64(), 10)}
		case attribute.FLOAT64:
			v = map[string]float64{"doubleValue": a.Value.AsFloat64()}
		default:
			v = map[string]string{"stringValue": a.Value.String()}
		}
		list = append(list, keyValue{string(a.Key), v})
	}
	return list
}
