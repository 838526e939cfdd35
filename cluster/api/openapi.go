package api

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"strconv"

	"imgcluster/cluster/wire"
)

// OpenAPI describes the routes of clients, all but the dashboard's, for programs: OpenAPI 3.1 in YAML. The
// tests compare it with the routes, with the types of package wire, and with what nodes answer.
//
//go:embed openapi.yaml
var OpenAPI string

// openAPITag changes with the document.
var openAPITag = func() string {
	sum := sha256.Sum256([]byte(OpenAPI))
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}()

// openAPI sends OpenAPI. It is the same for everybody, and says nothing of this cluster.
func (h *Handler) openAPI(w http.ResponseWriter, r *http.Request) {
	header := http.Header{"Etag": {openAPITag}, "Cache-Control": {"no-cache"}}
	if c, err := wire.ParseConditions(r.Header); err == nil && c.Excluded([]string{openAPITag}) {
		notModified(w, header)
		return
	}
	header.Set("Content-Type", "application/yaml")
	header.Set("Content-Length", strconv.Itoa(len(OpenAPI)))
	maps.Copy(w.Header(), header)
	h.extend(w)
	io.WriteString(w, OpenAPI)
}
