package api

import (
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest/apicheck"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

func loadOpenAPI(t *testing.T) *apicheck.Document {
	t.Helper()
	d, err := apicheck.Load(OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// rolesOf are the roles that the document names for each kind of route.
var rolesOf = map[who][]image.Role{
	anyone:    nil,
	holders:   {image.RoleRead, image.RoleWrite, image.RoleMetrics, image.RoleAdmin},
	observers: {image.RoleMetrics, image.RoleAdmin},
	admins:    {image.RoleAdmin},
	owners:    {image.RoleRead, image.RoleWrite, image.RoleAdmin},
	readers:   {image.RoleRead, image.RoleWrite, image.RoleAdmin},
	writers:   {image.RoleWrite, image.RoleAdmin},
}

// TestOpenAPIRoutes: the document is valid, and has the routes of clients but for the dashboard's pages, with
// who may use them, and no others. HEAD is listed where a client has a use for it.
func TestOpenAPIRoutes(t *testing.T) {
	documented := map[string]*openapi3.Operation{}
	ids := map[string]bool{}
	for path, item := range loadOpenAPI(t).Doc().Paths.Map() {
		for method, op := range item.Operations() {
			documented[method+" "+path] = op
			if ids[op.OperationID] || op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s %s: operationId %q, summary %q, tags %q", method, path, op.OperationID, op.Summary, op.Tags)
			}
			ids[op.OperationID] = true
		}
	}
	for _, one := range routes {
		if one.who == nodes || one.path == wire.UIPath {
			continue
		}
		methods := []string{one.method}
		if one.path == wire.ImagePattern && one.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			key := method + " " + strings.ReplaceAll(one.path, "...}", "}")
			op := documented[key]
			if op == nil {
				t.Errorf("openapi.yaml does not have %s", key)
				continue
			}
			delete(documented, key)
			var roles []image.Role
			text, _ := json.Marshal(op.Extensions["x-roles"])
			if err := json.Unmarshal(text, &roles); err != nil || !slices.Equal(roles, rolesOf[one.who]) {
				t.Errorf("%s: x-roles are %s, want %q", key, text, rolesOf[one.who])
			}
			if open := op.Security != nil && isOptional(*op.Security); open != (one.who == anyone) {
				t.Errorf("%s: security %v", key, op.Security)
			}
		}
	}
	for key := range documented {
		t.Errorf("openapi.yaml has %s, which is no route", key)
	}
}

// isOptional reports whether a request needs no key.
func isOptional(all openapi3.SecurityRequirements) bool {
	return len(all) == 0 ||
		slices.ContainsFunc(all, func(one openapi3.SecurityRequirement) bool { return len(one) == 0 })
}

// schemaTypes are the types that the schemas of objects describe, by their names.
var schemaTypes = map[string]any{
	"Problem": image.Problem{}, "Receipt": image.Receipt{},
	"Announcement": wire.Announcement{}, "ImageInfo": wire.Info{}, "ImageList": wire.List{},
	"AccessKey": wire.AccessKey{}, "AccessKeyList": wire.KeyList{}, "AccessKeyRequest": wire.KeyRequest{},
	"NewAccessKey": wire.NewKey{}, "User": wire.User{}, "UserRequest": wire.UserRequest{},
	"UserList": wire.UserList{}, "Removal": wire.Removal{}, "UserKey": wire.UserKey{},
	"UserKeyList": wire.UserKeyList{}, "Rewrap": wire.Rewrap{}, "RewrapNode": wire.RewrapNode{},
	"MasterKey": wire.MasterKey{}, "MasterKeyNode": wire.MasterKeyNode{},
	"MasterKeyChange": wire.MasterKeyChange{}, "ClusterStatus": wire.ClusterStatus{},
	"NodeStatus": wire.NodeStatus{}, "ShardStatus": wire.ShardStatus{}, "NodeInfo": wire.NodeInfo{},
	"Machine": hostinfo.Host{}, "ImagesChanged": wire.ImagesChanged{}, "History": wire.History{},
	"Sample": wire.Sample{}, "NodeSample": wire.NodeSample{}, "Member": wire.Member{},
	"MemberList": wire.MemberList{}, "MemberChange": wire.MemberChange{}, "VerifyLine": wire.VerifyLine{},
	"LogLevel": wire.LogLevel{}, "Login": wire.Login{}, "Session": wire.Session{}, "Run": wire.Run{},
	"RunRequest": wire.RunRequest{},
}

// betweenNodes are the fields of NodeStatus that only nodes send to each other.
var betweenNodes = []string{"time", "serves", "incarnation", "leads", "master_keys", "receiving"}

// TestOpenAPISchemas: each schema of an object has the fields of its type, with those that are never left out
// as required ones, and those of a request that is refused with fields that are unknown say so.
func TestOpenAPISchemas(t *testing.T) {
	for name, schema := range loadOpenAPI(t).Doc().Components.Schemas {
		s := schema.Value
		if len(s.Properties) == 0 {
			continue
		}
		of, ok := schemaTypes[name]
		if !ok {
			t.Errorf("there is no type for the schema %s", name)
			continue
		}
		fields := jsonFields(reflect.TypeOf(of))
		for field, f := range fields {
			if name == "NodeStatus" && slices.Contains(betweenNodes, field) {
				continue
			}
			p := s.Properties[field]
			if p == nil {
				t.Errorf("the schema %s does not have %s", name, field)
				continue
			}
			if p.Value.AllOf == nil && !p.Value.Type.Is(jsonType(f.of)) {
				t.Errorf("%s.%s is %v, and not %v", name, field, p.Value.Type, f.of)
			}
			if required := slices.Contains(s.Required, field); required == f.optional {
				t.Errorf("%s.%s: required is %t", name, field, required)
			}
		}
		for field := range s.Properties {
			if _, ok := fields[field]; !ok {
				t.Errorf("the schema %s has %s, which %T has not", name, field, of)
			}
		}
	}
}

// jsonField is a field of a struct.
type jsonField struct {
	of       reflect.Type
	optional bool
}

// jsonFields returns a struct's fields by their names in JSON.
func jsonFields(t reflect.Type) map[string]jsonField {
	fields := map[string]jsonField{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = jsonField{f.Type, options != ""}
		}
	}
	return fields
}

// jsonType returns the type in JSON of what has a Go type.
func jsonType(t reflect.Type) string {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()) {
		return openapi3.TypeString
	}
	switch t.Kind() {
	case reflect.Bool:
		return openapi3.TypeBoolean
	case reflect.String:
		return openapi3.TypeString
	case reflect.Float64:
		return openapi3.TypeNumber
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return openapi3.TypeString
		}
		return openapi3.TypeArray
	case reflect.Struct, reflect.Map:
		return openapi3.TypeObject
	}
	return openapi3.TypeInteger
}

// TestOpenAPIProblems: the document has the kinds of errors, and every answer that is one as a problem, with
// a status that errors have.
func TestOpenAPIProblems(t *testing.T) {
	doc := loadOpenAPI(t).Doc()
	var documented []string
	for _, code := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		documented = append(documented, code.(string))
	}
	kinds := kindsOf(t)
	slices.Sort(documented)
	slices.Sort(kinds)
	if !slices.Equal(documented, kinds) {
		t.Errorf("openapi.yaml has the codes\n%q, and there are\n%q", documented, kinds)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status, response := range op.Responses.Map() {
				ofKind := slices.ContainsFunc(kinds, func(kind string) bool {
					return strconv.Itoa(image.Kind(kind).Status()) == status
				})
				if problem := response.Value.Content[wire.ProblemType] != nil; problem != ofKind {
					t.Errorf("%s %s: %s is a problem: %t", method, path, status, problem)
				}
			}
		}
	}
}

// TestOpenAPIServed: everybody gets the document, and once.
func TestOpenAPIServed(t *testing.T) {
	d := loadOpenAPI(t)
	var who access.Principal
	h, _ := guarded(&who)
	srv := httptest.NewServer(h)
	defer srv.Close()
	client := &http.Client{Transport: d.Transport(t, http.DefaultTransport)}
	ask := func(method string, header http.Header) (*http.Response, string) {
		req, err := http.NewRequest(method, srv.URL+wire.OpenAPIPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	resp, text := ask(http.MethodGet, http.Header{})
	tag := resp.Header.Get("Etag")
	if resp.StatusCode != http.StatusOK || text != OpenAPI || tag == "" ||
		resp.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v, %d bytes of %d", resp.StatusCode, resp.Header, len(text), len(OpenAPI))
	}
	if resp, text := ask(http.MethodHead, http.Header{}); resp.StatusCode != http.StatusOK ||
		resp.ContentLength != int64(len(OpenAPI)) || text != "" {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	for _, same := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		resp, text := ask(http.MethodGet, http.Header{"If-None-Match": {same}})
		if resp.StatusCode != http.StatusNotModified || text != "" {
			t.Errorf("If-None-Match: %s: %d", same, resp.StatusCode)
		}
	}
	if resp, _ := ask(http.MethodGet, http.Header{"If-None-Match": {`"x"`}}); resp.StatusCode != http.StatusOK {
		t.Errorf("with another tag: %d", resp.StatusCode)
	}
}

// someRuns are runs that work.
type someRuns struct{ state wire.Run }

func (r *someRuns) Report(context.Context, io.Reader) ([]byte, error) {
	return []byte("<p>report"), nil
}
func (r *someRuns) State() wire.Run  { return r.state }
func (r *someRuns) Page() []byte     { return []byte("<p>page") }
func (*someRuns) ScriptHash() string { return "sha256-x" }

func (r *someRuns) Start(string) error {
	if r.state.State == wire.RunRunning {
		return image.Errorf(image.KindConflict, "a run is in progress").WithHint("wait")
	}
	r.state.State = wire.RunRunning
	return nil
}

// TestOpenAPIRuns checks the answers about runs, which only nodes of a program of its own have.
func TestOpenAPIRuns(t *testing.T) {
	d := loadOpenAPI(t)
	who := access.Administrator
	h, _ := guarded(&who)
	h.Runs = &someRuns{wire.Run{State: wire.RunNone}}
	h.reports.wait = 0
	srv := httptest.NewServer(h)
	defer srv.Close()
	client := &http.Client{Transport: d.Transport(t, http.DefaultTransport)}
	form := &strings.Builder{}
	fields := multipart.NewWriter(form)
	part, err := fields.CreateFormFile("log", "log.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(part, "{}")
	fields.Close()
	for _, x := range []struct {
		method, path, kind, body string
		want                     int
	}{
		{"GET", wire.RunsPath, "", "", 200},
		{"POST", wire.RunsPath, wire.DocumentType, `{"profile":"quick"}`, 202},
		{"POST", wire.RunsPath, wire.DocumentType, `{"profile":"quick"}`, 409},
		{"POST", wire.RunsPath, wire.DocumentType, `{"profile":"quick","x":1}`, 400},
		{"POST", wire.RunsPath, "text/plain", `{"profile":"quick"}`, 415},
		{"GET", wire.RunReport, "", "", 200},
		{"POST", wire.ReportPath, fields.FormDataContentType(), form.String(), 200},
		{"POST", wire.ReportPath, "text/plain", "", 415},
	} {
		req, err := http.NewRequest(x.method, srv.URL+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", x.kind)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != x.want {
			t.Errorf("%s %s: %d %s, %v", x.method, x.path, resp.StatusCode, text, err)
		}
	}
}
