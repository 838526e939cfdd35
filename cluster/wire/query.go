package wire

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgcluster/cluster/image"
)

// Form is what of an image is asked for.
type Form string

// The forms of an image.
const (
	FormPlain     Form = ""
	FormEncrypted Form = "encrypted" // one of its copies, as it is stored
	FormThumbnail Form = "thumbnail" // a small picture of it
)

// EncryptedForm is the query that asks for an image as it is stored.
const EncryptedForm = "form=" + string(FormEncrypted)

// ParseForm returns what of an image is asked for, and of a thumbnail how many pixels it may be wide and high
// at most, edge when the query does not say.
func ParseForm(v url.Values, edge, edgeMax int) (form Form, pixels int, err error) {
	form, pixels = Form(v.Get("form")), edge
	switch form {
	case FormPlain, FormEncrypted:
		return form, 0, nil
	case FormThumbnail:
	default:
		return "", 0, image.Errorf(image.KindInvalid, "form=%.40q", string(form)).
			WithHint("leave form out, or ask for form=encrypted or form=thumbnail")
	}
	if s := v.Get("size"); s != "" {
		pixels, err = strconv.Atoi(s)
		if err != nil || pixels < 1 || pixels > edgeMax {
			return "", 0, image.Errorf(image.KindInvalid, "size=%.40q", s).
				WithHint(fmt.Sprintf("give the longest edge in pixels, 1 to %d", edgeMax))
		}
	}
	return form, pixels, nil
}

// ListQuery narrows a list: names with Prefix, in byte order behind After, at most Limit of them (0: as many
// as the node gives on a page).
type ListQuery struct {
	Prefix, After string
	Limit         int
}

// Values returns the query's parameters.
func (q ListQuery) Values() url.Values {
	v := url.Values{}
	if q.Prefix != "" {
		v.Set("prefix", q.Prefix)
	}
	if q.After != "" {
		v.Set("after", q.After)
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// ParseList reads a ListQuery. Its Limit is from 1 to limitMax.
func ParseList(v url.Values, limitMax int) (q ListQuery, err error) {
	q = ListQuery{Prefix: v.Get("prefix"), After: v.Get("after"), Limit: limitMax}
	for _, key := range []string{"prefix", "after"} {
		if s := v.Get(key); len(s) > image.NameBytesMax {
			return q, image.Errorf(image.KindInvalid,
				"%s has %d bytes, more than the %d of a name", key, len(s), image.NameBytesMax).
				WithHint("give the beginning of a name, or the last one of the page before")
		}
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return q, image.Errorf(image.KindInvalid, "limit=%.20q", s).
				WithHint("limit is a number from 1 to " + strconv.Itoa(limitMax))
		}
		q.Limit = min(n, limitMax)
	}
	return q, nil
}

// ShardsMax bounds the shards of one ShardQuery: as many as there can be.
const ShardsMax = 256

// ShardQuery selects the shards, and the user, whose images a node lists for another one, beside a ListQuery.
type ShardQuery struct {
	Shards []uint64
	User   string
}

// Set adds the query's parameters.
func (q ShardQuery) Set(v url.Values) {
	ids := make([]string, len(q.Shards))
	for i, s := range q.Shards {
		ids[i] = strconv.FormatUint(s, 10)
	}
	v.Set("shards", strings.Join(ids, ","))
	v.Set("user", q.User)
}

// ParseShards reads a ShardQuery.
func ParseShards(v url.Values) (q ShardQuery, err error) {
	text := v.Get("shards")
	for one := range strings.SplitSeq(text, ",") {
		shard, err := strconv.ParseUint(one, 10, 64)
		if err != nil || slices.Contains(q.Shards, shard) || len(q.Shards) == ShardsMax {
			return q, image.Errorf(image.KindInvalid, "shards=%.40q", text).
				WithHint("shards are numbers with commas between them, each named once, and at most " +
					strconv.Itoa(ShardsMax))
		}
		q.Shards = append(q.Shards, shard)
	}
	q.User = v.Get("user")
	return q, image.CheckUser(q.User)
}

// VerifyQuery selects how a node verifies: a share of its copies, up to 1, and whether it replaces bad ones.
type VerifyQuery struct {
	Sample float64
	Repair bool
}

// String returns the query as it stands in a URL.
func (q VerifyQuery) String() string { return fmt.Sprintf("sample=%g&repair=%t", q.Sample, q.Repair) }

// ParseVerify reads a VerifyQuery; by default all copies are read, and none is replaced.
func ParseVerify(v url.Values) (q VerifyQuery, err error) {
	q.Sample = 1
	if s := v.Get("sample"); s != "" {
		if q.Sample, err = strconv.ParseFloat(s, 64); err != nil || !(q.Sample > 0 && q.Sample <= 1) {
			return q, image.Errorf(image.KindInvalid, "sample %.20q is not a share", s).
				WithHint("give a number above 0 and up to 1")
		}
	}
	if s := v.Get("repair"); s != "" {
		if q.Repair, err = strconv.ParseBool(s); err != nil {
			return q, image.Errorf(image.KindInvalid, "repair %.20q is neither true nor false", s).
				WithHint("give true or false")
		}
	}
	return q, nil
}

// NameQuery returns the parameters that name an image of which a node is to look at its copy.
func NameQuery(user, name string) url.Values { return url.Values{"user": {user}, "name": {name}} }

// ParseName reads what NameQuery returns.
func ParseName(v url.Values) (user, name string, err error) {
	user, name = v.Get("user"), v.Get("name")
	if err = image.CheckUser(user); err == nil {
		err = image.CheckName(name)
	}
	return user, name, err
}
