package api

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// who says who may use a route.
type who int

// Who may use a route. The zero value is nobody.
const (
	anyone    who = iota + 1
	holders       // of any key
	observers     // metrics, administrators
	admins        //
	owners        // of access keys, which are a user's: that user's read and write; administrators
	readers       // of the images of the route's user: that user's read and write; administrators
	writers       // that user's write; administrators
	nodes         // of the cluster, by their certificates, on the port of the nodes alone
)

// allows reports whether a sender may use a route, which is about images of user where it is about any. It
// looks at nothing else, so that a refusal says nothing about what there is.
func (o who) allows(p access.Principal, user string) bool {
	node := p.Node != 0
	switch o {
	case anyone:
		return true
	case holders:
		return slices.Contains(image.Roles, p.Role) || node
	case observers:
		return p.Admin() || p.Role == image.RoleMetrics
	case admins:
		return p.Admin()
	case owners:
		return p.Admin() || p.Role.OfUser()
	case readers: // a node forwards what it has allowed
		return p.Reads(user) || node
	case writers:
		return p.Writes(user) || node
	case nodes:
		return node
	}
	return false
}

// route is one method of one path. GET is HEAD too.
type route struct {
	method string
	path   string // as a pattern of http.ServeMux
	who    who
	serve  func(*Handler, http.ResponseWriter, *http.Request) // nil: Handler.images does
}

// routes are all routes. What is not here is answered to holders alone: 404, or 405 when the path is here.
var routes = []route{
	{http.MethodGet, wire.LivePath, anyone, (*Handler).livez},
	{http.MethodGet, wire.ReadyPath, anyone, (*Handler).readyz},
	{http.MethodGet, wire.MetricsPath, observers, (*Handler).metrics},
	{http.MethodGet, wire.ClusterPath, holders, (*Handler).cluster},
	{http.MethodGet, wire.NodePath, admins, (*Handler).node},
	{http.MethodGet, wire.MembersPath, admins, (*Handler).members},
	{http.MethodPost, wire.MembersPath, admins, (*Handler).changeMember},
	{http.MethodPost, wire.VerifyPath, admins, (*Handler).verify},
	{http.MethodGet, wire.EventsPath, holders, (*Handler).events},
	{http.MethodGet, wire.HistoryPath, admins, (*Handler).history},
	{http.MethodGet, wire.SessionPath, holders, (*Handler).session},
	{http.MethodPost, wire.SessionPath, anyone, (*Handler).login},
	{http.MethodDelete, wire.SessionPath, anyone, (*Handler).logout},
	{http.MethodPost, wire.ReportPath, admins, (*Handler).report},
	{http.MethodGet, wire.RunsPath, admins, (*Handler).run},
	{http.MethodPost, wire.RunsPath, admins, (*Handler).startRun},
	{http.MethodGet, wire.RunReport, admins, (*Handler).runReport},
	{http.MethodGet, wire.LogPath, admins, (*Handler).logLevel},
	{http.MethodPut, wire.LogPath, admins, (*Handler).setLogLevel},
	{http.MethodGet, wire.BackupPath, admins, (*Handler).backup},
	{http.MethodGet, wire.UIPath, anyone, (*Handler).ui},
	{http.MethodGet, wire.OpenAPIPath, anyone, (*Handler).openAPI},

	{http.MethodGet, wire.KeysPath, owners, (*Handler).listKeys},
	{http.MethodPost, wire.KeysPath, admins, (*Handler).addKey},
	{http.MethodDelete, wire.KeyPattern, owners, (*Handler).removeKey},
	{http.MethodGet, wire.UsersPath, admins, (*Handler).listUsers},
	{http.MethodPost, wire.UsersPath, admins, (*Handler).addUser},
	{http.MethodDelete, wire.UserPattern, admins, (*Handler).removeUser},

	{http.MethodGet, wire.MasterKeyPath, admins, (*Handler).masterKey},
	{http.MethodPost, wire.MasterKeyPath, admins, (*Handler).changeMasterKey},
	{http.MethodGet, wire.UserKeysPath, admins, (*Handler).userKeys},
	{http.MethodPost, wire.UserKeyPattern, admins, (*Handler).rotateUserKey},
	{http.MethodPost, wire.RewrapPattern, admins, (*Handler).rewrap},
	{http.MethodGet, wire.RewrapPattern, admins, (*Handler).rewrapState},

	{http.MethodGet, wire.ListPattern, readers, nil},
	{http.MethodPut, wire.ImagePattern, writers, nil},
	{http.MethodPost, wire.ImagePattern, writers, nil},
	{http.MethodGet, wire.ImagePattern, readers, nil},
	{http.MethodDelete, wire.ImagePattern, writers, nil},

	{http.MethodPost, wire.HelloPath, nodes, (*Handler).hello},
	{http.MethodPost, wire.JoinPath, nodes, (*Handler).join},
	{http.MethodPost, wire.GroupPath, nodes, (*Handler).group},
	{http.MethodPost, wire.SuspectPath, nodes, (*Handler).suspect},
	{http.MethodGet, wire.StatusPath, nodes, (*Handler).status},
	{http.MethodGet, wire.CopyPattern, nodes, (*Handler).copy},
	{http.MethodGet, wire.ShardListPath, nodes, (*Handler).listShards},
	{http.MethodGet, wire.OldCopiesPath, nodes, (*Handler).oldCopies},
	{http.MethodGet, wire.ShardPattern, nodes, (*Handler).shard},
}

// Routes calls yield with the method and the path, a pattern of http.ServeMux, of every route of both ports.
func Routes(yield func(method, pattern string) bool) {
	for _, one := range routes {
		if !yield(one.method, one.path) {
			return
		}
	}
}

// Those of images, which Handler.images serves.
var (
	listRoutes, listMethods   = routesOf(wire.ListPattern)
	imageRoutes, imageMethods = routesOf(wire.ImagePattern)
)

// routesOf returns the routes of a path, by method, and the methods as Allow has them.
func routesOf(pattern string) (by map[string]route, allow string) {
	by = map[string]route{}
	var methods []string
	for _, one := range routes {
		if one.path != pattern {
			continue
		}
		by[one.method] = one
		methods = append(methods, one.method)
		if one.method == http.MethodGet {
			by[http.MethodHead] = one
			methods = append(methods, http.MethodHead)
		}
	}
	return by, strings.Join(methods, ", ")
}

// addRoutes makes some of the routes those of a mux, but for those of images.
func (h *Handler) addRoutes(mux *http.ServeMux, has func(route) bool) {
	patterns := map[string]bool{}
	for _, one := range routes {
		if one.serve != nil && has(one) {
			patterns[one.path] = true
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(patterns)) {
		by, allow := routesOf(pattern)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			one, ok := by[r.Method]
			if !ok {
				one = route{who: holders, serve: func(h *Handler, w http.ResponseWriter, r *http.Request) {
					h.refuseMethod(w, r, allow)
				}}
			}
			if r = h.admit(w, r, one.who, ""); r != nil && (!ok || h.conditional(w, r)) {
				one.serve(h, w, r)
			}
		})
	}
	mux.HandleFunc("/", h.notFound)
}

// admit finds out who sends a request, and returns it with the sender in its context; nil when the sender may
// not use the route, and is told so. It comes before anything else that a request can ask for.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request, may who, user string) *http.Request {
	if may == anyone {
		return r
	}
	p, err := access.From(r.Context()), error(nil)
	if p.Node == 0 {
		p, err = h.Authenticate(r)
	}
	if err == nil && p.Open { // a page in a browser needs no key to read
		err = h.checkHost(r)
	}
	switch {
	case err != nil:
	case may.allows(p, user):
		return r.WithContext(access.With(r.Context(), p))
	case p == access.Principal{}:
		err = access.ErrNoKey()
	default:
		err = access.ErrRole(r.Method, r.URL.Path, p)
	}
	h.countRefused(err)
	h.fail(w, r, err)
	return nil
}

// notFound answers a path that nothing is at.
func (h *Handler) notFound(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == "/" && strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, wire.UIPath, http.StatusSeeOther) // somebody typed the address into a browser
		return
	}
	if r = h.admit(w, r, holders, ""); r == nil {
		return
	}
	if r.Method == http.MethodOptions {
		h.refuseMethod(w, r, "")
		return
	}
	h.fail(w, r, image.Errorf(image.KindNotFound, "there is nothing at %.200s", r.URL.Path).
		WithHint("images are under /v1/images/{user}/{name}, the cluster's state at /v1/cluster"))
}

// refuseMethod answers a method that is not in allow; OPTIONS is asked for what is.
func (h *Handler) refuseMethod(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", strings.TrimPrefix(allow+", OPTIONS", ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.fail(w, r, image.Errorf(image.KindMethod, "%.20q is not for this path", r.Method).
		WithHint("use one of "+allow))
}

// serveOn serves a request by a mux, unless it is for images: their paths do not go through one, which would
// clean ".." away where it has to be refused.
func (h *Handler) serveOn(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	switch escaped, clean := r.URL.EscapedPath(), path.Clean(r.URL.Path); {
	case strings.HasPrefix(escaped, wire.ImagesPath):
		h.images(w, r, escaped[len(wire.ImagesPath):])
	case r.URL.Path != clean && r.URL.Path != clean+"/" || r.RequestURI == "*": // not for the mux
		h.notFound(w, r)
	default:
		mux.ServeHTTP(w, r)
	}
}
