package wire

import (
	"net/http"
	"net/url"
	"strings"

	"imgcluster/cluster/image"
)

// The paths of the API. Those under InternalPath are what nodes ask each other.
const (
	ImagesPath  = "/v1/images/" // then the user, and the name; see ImagePath
	ClusterPath = "/v1/cluster"
	NodePath    = "/v1/node"
	MembersPath = "/v1/members"
	VerifyPath  = "/v1/verify"
	KeysPath    = "/v1/keys"
	UsersPath   = "/v1/users"
	LivePath    = "/livez"
	ReadyPath   = "/readyz"
	MetricsPath = "/metrics"

	// Patterns of http.ServeMux for what is under the paths of keys, users and images.
	KeyPattern   = KeysPath + "/{id}"
	UserPattern  = UsersPath + "/{user}"
	ListPattern  = ImagesPath + "{user}"
	ImagePattern = ListPattern + "/{name...}"

	InternalPath  = "/internal/"
	HelloPath     = "/internal/v1/hello"
	JoinPath      = "/internal/v1/join"
	StatusPath    = "/internal/v1/status"
	SuspectPath   = "/internal/v1/suspect"
	ShardListPath = "/internal/v1/images"
	CopyPattern   = copiesPath + "{file}" // of http.ServeMux; see CopyPath
	copiesPath    = "/internal/v1/copies/"
)

// UserPath returns the path of a user's list, escaped.
func UserPath(user string) string { return ImagesPath + url.PathEscape(user) }

// ImagePath returns the path of an image, escaped part by part.
func ImagePath(user, name string) string {
	path := UserPath(user)
	for part := range strings.SplitSeq(name, "/") {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// ParseImagePath reads what follows ImagesPath in an escaped path: a user and, where one reports it, an
// image's name.
func ParseImagePath(rest string) (user, name string, one bool, err error) {
	user, name, one = strings.Cut(rest, "/")
	if user, err = url.PathUnescape(user); err == nil {
		name, err = url.PathUnescape(name)
	}
	if err != nil {
		return "", "", false, image.Errorf(image.KindInvalid, "malformed path: %w", err).
			WithHint("percent-encode the name")
	}
	if err = image.CheckUser(user); err == nil && one {
		err = image.CheckName(name)
	}
	return user, name, one, err
}

// CopyPath returns the path of a node's file of a copy.
func CopyPath(f image.FileID) string { return copiesPath + f.String() }

// ParseCopyPath reads the path of a request that matched CopyPattern.
func ParseCopyPath(r *http.Request) (image.FileID, error) {
	return image.ParseFileID(r.PathValue("file"))
}
