package wire

import (
	"net/http"
	"net/url"
	"strconv"
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
	EventsPath  = "/v1/events"
	HistoryPath = "/v1/history"
	SessionPath = "/v1/session"
	ReportPath  = "/v1/report"
	RunsPath    = "/v1/runs"
	RunReport   = "/v1/runs/report"
	LogPath     = "/v1/log-level"
	BackupPath  = "/v1/backup"
	UIPath      = "/ui/"
	OpenAPIPath = "/v1/openapi.yaml"

	// Patterns of http.ServeMux for what is under the paths of keys, users and images.
	KeyPattern     = KeysPath + "/{id}"
	UserPattern    = UsersPath + "/{user}"
	UserKeyPattern = UserPattern + "/key"
	RewrapPattern  = UserPattern + "/rewrap"
	UserKeysPath   = "/v1/user-keys"
	MasterKeyPath  = "/v1/master-key"
	ListPattern    = ImagesPath + "{user}"
	ImagePattern   = ListPattern + "/{name...}"

	InternalPath  = "/internal/"
	HelloPath     = "/internal/v1/hello"
	JoinPath      = "/internal/v1/join"
	GroupPath     = "/internal/v1/group"
	StatusPath    = "/internal/v1/status"
	SuspectPath   = "/internal/v1/suspect"
	ShardListPath = "/internal/v1/images"
	OldCopiesPath = "/internal/v1/old-copies"
	ShardPattern  = shardsPath + "{shard}" // of http.ServeMux; see ShardPath
	shardsPath    = "/internal/v1/shards/"
	CopyPattern   = copiesPath + "{file}" // of http.ServeMux; see CopyPath
	copiesPath    = "/internal/v1/copies/"
)

// BackupType is the media type of a backup.
const BackupType = "application/vnd.imgcluster.backup"

// nodeHost begins the host in the URL of a request to another node. Nodes are not called by address: which
// one answers is what counts.
const nodeHost = "node-"

// NodeHost returns the host in the URL of a request to a node.
func NodeHost(id image.NodeID) string { return nodeHost + formatNode(id) }

// ParseNodeHost reads what NodeHost has made, with a port or without.
func ParseNodeHost(host string) (id image.NodeID, ok bool) {
	host, _, _ = strings.Cut(host, ":")
	text, ok := strings.CutPrefix(host, nodeHost)
	n, err := strconv.ParseUint(text, 10, 32)
	return image.NodeID(n), ok && err == nil
}

// UserPath returns the path of a user's list, escaped.
func UserPath(user string) string { return ImagesPath + url.PathEscape(user) }

// KeyPath returns the path of an access key, escaped.
func KeyPath(id string) string { return KeysPath + "/" + url.PathEscape(id) }

// AccountPath returns the path of a user, escaped. UserPath is that of the user's images.
func AccountPath(user string) string { return UsersPath + "/" + url.PathEscape(user) }

// UserKeyPath returns the path of a user's key, escaped.
func UserKeyPath(user string) string { return AccountPath(user) + "/key" }

// RewrapPath returns the path of a user's Rewrap, escaped.
func RewrapPath(user string) string { return AccountPath(user) + "/rewrap" }

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

// ShardPath returns the path of the state of a shard.
func ShardPath(shard uint64) string { return shardsPath + strconv.FormatUint(shard, 10) }

// ParseShardPath reads the path of a request that matched ShardPattern.
func ParseShardPath(r *http.Request) (uint64, error) {
	shard, err := strconv.ParseUint(r.PathValue("shard"), 10, 64)
	if err != nil {
		return 0, image.Errorf(image.KindInvalid, "%.40q is not the number of a shard", r.PathValue("shard"))
	}
	return shard, nil
}

// CopyPath returns the path of a node's file of a copy.
func CopyPath(f image.FileID) string { return copiesPath + f.String() }

// ParseCopyPath reads the path of a request that matched CopyPattern.
func ParseCopyPath(r *http.Request) (image.FileID, error) {
	return image.ParseFileID(r.PathValue("file"))
}
