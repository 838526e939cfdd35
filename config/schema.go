package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one setting as its struct tags describe it.
type field struct {
	key   string // such as cluster.data_shards; for a field of Node the bare name
	env   string
	def   string
	help  string
	typ   reflect.Type
	index []int // for reflect.Value.FieldByIndex
	min   int64
	max   int64
	oneOf []string
}

// envPrefix starts the name of every environment variable that is a setting.
const envPrefix = "IMGCLUSTER_"

// durationMax bounds durations that have no max of their own; below durationMin a unit was mistaken.
const (
	durationMin = time.Millisecond
	durationMax = 30 * 24 * time.Hour
)

var (
	fields     = sectionFields()
	nodeFields = structFields(reflect.TypeFor[Node](), "", nil)
	byKey      = indexFields(fields)
)

var (
	typeBytes    = reflect.TypeFor[Bytes]()
	typeDecimal  = reflect.TypeFor[Decimal]()
	typeDuration = reflect.TypeFor[time.Duration]()
	typeNodes    = reflect.TypeFor[[]Node]()
)

// nodesKey is the one setting that is a list.
const nodesKey = "cluster.nodes"

// sectionFields lists all settings in the order of the structs.
func sectionFields() []*field {
	var list []*field
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		if f := t.Field(i); f.Type.Kind() == reflect.Struct {
			list = append(list, structFields(f.Type, f.Tag.Get("yaml")+".", f.Index)...)
		}
	}
	return list
}

func structFields(t reflect.Type, prefix string, index []int) []*field {
	var list []*field
	for i := range t.NumField() {
		sf := t.Field(i)
		f := &field{
			key: prefix + sf.Tag.Get("yaml"), def: sf.Tag.Get("default"), help: sf.Tag.Get("help"),
			typ: sf.Type, index: append(append([]int{}, index...), i),
		}
		f.env = envPrefix + strings.ToUpper(strings.ReplaceAll(f.key, ".", "_"))
		f.bounds(sf.Tag)
		list = append(list, f)
	}
	return list
}

// bounds reads the range from the tags. A mistake in them is one of this package.
func (f *field) bounds(tag reflect.StructTag) {
	f.max = 1<<63 - 1
	if f.typ == typeDuration {
		f.min = int64(durationMin)
		f.max = int64(durationMax)
	}
	if s := tag.Get("oneof"); s != "" {
		f.oneOf = strings.Split(s, ",")
	}
	for name, to := range map[string]*int64{"min": &f.min, "max": &f.max} {
		if s := tag.Get(name); s != "" {
			n, err := f.number(s)
			if err != nil {
				panic(fmt.Sprintf("tag %s of %s: %v", name, f.key, err))
			}
			*to = n
		}
	}
}

func indexFields(list []*field) map[string]*field {
	m := make(map[string]*field, len(list))
	for _, f := range list {
		m[f.key] = f
	}
	return m
}

// kind names the type for users.
func (f *field) kind() string {
	switch {
	case f.typ == typeBytes:
		return "size"
	case f.typ == typeDecimal:
		return "decimal"
	case f.typ == typeDuration:
		return "duration"
	case f.typ == typeNodes:
		return "nodes"
	case f.typ.Kind() == reflect.String:
		return "text"
	case f.typ.Kind() == reflect.Bool:
		return "switch"
	}
	return "number"
}

// parse reads the text form that environment, flags and file share, and checks its range.
func (f *field) parse(s string) (any, *fault) {
	switch f.kind() {
	case "nodes":
		return parseNodes(s)
	case "text":
		if f.key == "host" {
			s = Host(s)
		}
		return s, f.checkText(s)
	case "switch":
		if s != "true" && s != "false" {
			return nil, faultf(f.defaultHint(), "%s is neither true nor false", quote(s))
		}
		return s == "true", nil
	}
	n, err := f.number(s)
	if err != nil {
		return nil, err
	}
	return reflect.ValueOf(n).Convert(f.typ).Interface(), f.checkRange(n)
}

// number reads a size, a duration or a whole number.
func (f *field) number(s string) (int64, *fault) {
	switch f.typ {
	case typeBytes:
		b, err := ParseBytes(s)
		if err != nil {
			return 0, err.(*fault)
		}
		return int64(b), nil
	case typeDecimal:
		d, err := ParseDecimal(s)
		if err != nil {
			return 0, err.(*fault)
		}
		return int64(d), nil
	case typeDuration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, faultf("write a number and a unit, such as 500ms, 5s or 2m",
				"%s is not a duration", quote(s))
		}
		return int64(d), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil && isRange(err):
		return 0, faultf("give a smaller one", "%s is too large a number", quote(s))
	case err != nil:
		return 0, faultf("write it in digits, such as "+f.example(), "%s is not a whole number", quote(s))
	}
	return n, nil
}

// checkRange checks a number against min and max.
func (f *field) checkRange(n int64) *fault {
	if n >= f.min && n <= f.max {
		return nil
	}
	show := func(n int64) string { return format(reflect.ValueOf(n).Convert(f.typ)) }
	if f.max == 1<<63-1 {
		return faultf(f.defaultHint(), "%s is less than %s", show(n), show(f.min))
	}
	if f.typ.Kind() == reflect.Uint32 { // a wrong node ID may not fit its type
		show = func(n int64) string { return strconv.FormatInt(n, 10) }
	}
	return faultf(f.defaultHint(), "%s is not in the range %s to %s", show(n), show(f.min), show(f.max))
}

// clusterName is what a cluster's name may be: it stands in logs, pages and file headers.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// pathMax bounds a path, in bytes; it is that of Linux.
const pathMax = 4095

func (f *field) checkText(s string) *fault {
	switch {
	case s == "":
		return faultf(f.defaultHint(), "is empty")
	case slices.Contains(f.oneOf, s):
		return nil
	case len(f.oneOf) > 0:
		return faultf(suggest(s, f.oneOf, "choose one of these"),
			"%s is not one of %s", quote(s), strings.Join(f.oneOf, ", "))
	case f.key == "cluster.name" && !clusterName.MatchString(s):
		return faultf("use up to 64 letters, digits, '-', '_' and '.', first a letter or a digit",
			"%s cannot be a cluster's name", quote(s))
	case f.key == "host":
		return checkHost(s)
	case f.key == "node.host_names":
		for name := range strings.SplitSeq(s, ",") {
			if wrong := checkHost(strings.TrimSpace(name)); wrong != nil {
				return wrong
			}
		}
		return nil
	case f.key == "node.listen":
		_, wrong := parseListen(s)
		return wrong
	case len(s) > pathMax || strings.ContainsFunc(s, unprintable):
		return faultf(f.defaultHint(), "%s cannot be a path", quote(s))
	}
	return nil
}

// unprintable finds control characters, and the mark of a byte that is not UTF-8.
func unprintable(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\uFFFD' || r == '\u2028' || r == '\u2029' ||
		r == '\uFEFF'
}

// example is a value that is right, for hints.
func (f *field) example() string {
	if f.def != "" {
		return f.def
	}
	return map[string]string{
		"id": "1", "host": "10.40.45.206", "api_port": "8001", "raft_port": "9001",
	}[f.key]
}

func (f *field) defaultHint() string {
	if f.def == "" {
		return "for example " + f.example()
	}
	return "the default is " + f.def
}

// format writes a value as parse reads it.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case []Node:
		return formatNodes(x)
	default:
		return fmt.Sprint(x)
	}
}

// formatDuration is Duration.String without zeros at the end: 10m, not 10m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
