// Package apicheck checks what clients ask of nodes, and what nodes answer, against the reference of the API:
// an OpenAPI document. It is stricter than the document where a test has to fail when code and document
// differ: an answer has no field, header or status that the document does not have.
package apicheck

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"imgcluster/cluster/wire"
)

// namePath is the path whose last part may have slashes in it, as no path of OpenAPI has. Its clients may
// encode them.
const namePath = wire.ListPattern + "/{name}"

// anyHeader are the header fields that every answer may have: those of HTTP itself, and what has browsers do
// no harm.
var anyHeader = []string{
	"Allow", "Cache-Control", "Connection", "Content-Length", "Content-Security-Policy", "Content-Type", "Date",
	"Referrer-Policy", "X-Content-Type-Options",
}

// unlisted are the beginnings of paths that are not for clients, or for people.
var unlisted = []string{wire.InternalPath, wire.UIPath}

// Document is an OpenAPI document. It is safe for concurrent use.
type Document struct {
	doc   *openapi3.T
	paths []string

	mu       sync.Mutex
	answered map[string]bool // operationId and status
}

// Load reads a document. The error says what is not valid in it, of its examples too.
func Load(text string) (*Document, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData([]byte(text))
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(loader.Context, openapi3.EnableExamplesValidation()); err != nil {
		return nil, err
	}
	closed := false
	for _, schema := range doc.Components.Schemas {
		if s := schema.Value; len(s.Properties) > 0 && s.AdditionalProperties.Has == nil {
			s.AdditionalProperties.Has = &closed
		}
	}
	d := &Document{doc: doc, answered: map[string]bool{}, paths: doc.Paths.Keys()}
	return d, nil
}

// Doc returns the document itself, whose schemas allow no field that they do not name.
func (d *Document) Doc() *openapi3.T { return d.doc }

// Answered reports whether an operation was answered with a status, by what has been checked so far.
func (d *Document) Answered(operationID string, status int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answered[answer(operationID, status)]
}

func answer(operationID string, status int) string { return fmt.Sprintf("%s %d", operationID, status) }

// CheckJSON compares a JSON document with one of the schemas.
func (d *Document) CheckJSON(schema string, text []byte) error {
	s := d.doc.Components.Schemas[schema]
	if s == nil {
		return fmt.Errorf("there is no schema %s", schema)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("%s: %w", schema, err)
	}
	if err := s.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		return fmt.Errorf("%s: %w in %.500s", schema, err, text)
	}
	return nil
}

// exchange is a request and its answer. Bodies are those of documents; of others they are empty.
type exchange struct {
	req     *http.Request
	asked   []byte
	status  int
	header  http.Header
	body    []byte
	hasBody bool // body is all of it
}

// check compares an exchange with the document. The request must be right only when it was answered as one.
func (d *Document) check(x exchange) error {
	path := x.req.URL.EscapedPath()
	if slices.ContainsFunc(unlisted, func(s string) bool { return strings.HasPrefix(path, s) }) {
		return nil
	}
	route, params := d.find(x.req.Method, path)
	if route == nil {
		return d.checkNoRoute(x)
	}
	d.mu.Lock()
	d.answered[answer(route.Operation.OperationID, x.status)] = true
	d.mu.Unlock()
	in := &openapi3filter.RequestValidationInput{
		Request: x.req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
			ExcludeResponseBody: !x.hasBody, SkipSettingDefaults: true,
		},
	}
	if x.status < 300 {
		if err := checkRequest(in, x.asked); err != nil {
			return fmt.Errorf("the request was answered, and is not as documented: %w", err)
		}
	}
	return d.checkAnswer(in, x)
}

// find returns the route of a request, and the parameters in its path; nil when the document has none.
func (d *Document) find(method, path string) (*routers.Route, map[string]string) {
	if method == http.MethodHead {
		if route, params := d.findExact(method, path); route != nil {
			return route, params
		}
		method = http.MethodGet
	}
	return d.findExact(method, path)
}

func (d *Document) findExact(method, path string) (*routers.Route, map[string]string) {
	for _, pattern := range d.paths {
		params, ok := match(pattern, path)
		item := d.doc.Paths.Value(pattern)
		if op := item.GetOperation(method); ok && op != nil {
			return &routers.Route{Spec: d.doc, Path: pattern, PathItem: item, Method: method, Operation: op}, params
		}
	}
	return nil, nil
}

// match reports whether a path, escaped, has the form of a pattern, and returns the values of its parameters.
func match(pattern, path string) (map[string]string, bool) {
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	if pattern == namePath && len(have) > len(want) {
		last := len(want) - 1
		have = append(have[:last:last], strings.Join(have[last:], "/"))
	}
	if len(want) != len(have) {
		return nil, false
	}
	params := map[string]string{}
	for i, part := range want {
		value, err := url.PathUnescape(have[i])
		if err != nil {
			return nil, false
		}
		name, isParam := strings.CutPrefix(part, "{")
		switch {
		case isParam && value != "":
			params[strings.TrimSuffix(name, "}")] = value
		case value != part:
			return nil, false
		}
	}
	return params, true
}

// checkRequest compares a request with what the document says of its operation.
func checkRequest(in *openapi3filter.RequestValidationInput, body []byte) error {
	op := in.Route.Operation
	in.Options.ExcludeRequestBody = op.RequestBody == nil ||
		op.RequestBody.Value.Content[wire.DocumentType] == nil
	in.Request = in.Request.Clone(in.Request.Context())
	in.Request.Body = readAgain(body)
	for name := range in.Request.URL.Query() {
		if op.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil {
			return fmt.Errorf("no parameter %q", name)
		}
	}
	return openapi3filter.ValidateRequest(in.Request.Context(), in)
}

// checkAnswer compares an answer with what the document says of its operation.
func (d *Document) checkAnswer(in *openapi3filter.RequestValidationInput, x exchange) error {
	response := in.Route.Operation.Responses.Status(x.status)
	if response == nil {
		return fmt.Errorf("%s has no status %d", in.Route.Operation.OperationID, x.status)
	}
	if err := checkHeader(x.header, response.Value.Headers); err != nil {
		return err
	}
	if x.req.Method == http.MethodHead { // else it would not be looked at
		in.Request = in.Request.Clone(in.Request.Context())
		in.Request.Method = http.MethodGet
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: x.status, Header: x.header, Options: in.Options,
	}
	out.SetBodyBytes(x.body)
	return openapi3filter.ValidateResponse(context.Background(), out)
}

// checkHeader refuses an answer's header field that is not documented.
func checkHeader(header http.Header, documented openapi3.Headers) error {
	for key := range header {
		known := slices.Contains(anyHeader, key)
		for name := range documented {
			known = known || http.CanonicalHeaderKey(name) == key
		}
		if !known {
			return fmt.Errorf("the header field %s is not documented", key)
		}
	}
	return nil
}

// checkNoRoute checks the answer to what the document does not have.
func (d *Document) checkNoRoute(x exchange) error {
	switch {
	case x.status == http.StatusNoContent && x.req.Method == http.MethodOptions:
		return nil
	case x.status == http.StatusSeeOther && x.header.Get("Location") == wire.UIPath:
		return nil
	case x.status < 400:
		return fmt.Errorf("it is answered with %d, and not documented", x.status)
	case !x.hasBody:
		return nil
	}
	return d.CheckJSON("Problem", x.body)
}
