package config

import (
	"fmt"
	"maps"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// DefaultPath is the file that Load reads when none is named, if it is there.
const DefaultPath = "imgcluster.yaml"

// Options says where the configuration comes from.
type Options struct {
	Path   string         // a file that must be there; empty: DefaultPath if it is there, else no file
	NoFile bool           // no file, not even DefaultPath
	Flags  *pflag.FlagSet // its changed flags made by AddFlag count; may be nil
	Set    []string       // settings as key=value, as strong as flags
	Env    []string       // as os.Environ returns it; nil: no environment
}

// layer is what one source sets: typed values by key, and the places they come from.
type layer struct {
	values map[string]any
	places map[string]place
}

func newLayer() *layer { return &layer{values: map[string]any{}, places: map[string]place{}} }

// Load merges flags, environment, file and defaults, in this order of precedence, and checks the
// result. Its error is a Problems with everything that is wrong, in all sources.
func Load(o Options) (*Config, error) {
	var c collector
	var path string
	var data []byte
	if !o.NoFile {
		path, data = findFile(o.Path, &c)
	}
	return load(path, data, o, &c)
}

// load is Load with the file already read; path is empty when there is none.
func load(path string, data []byte, o Options, c *collector) (*Config, error) {
	file := newLayer()
	if path != "" {
		file = readYAML(path, data, c)
	}
	env, unknown := readEnv(o.Env, c)
	cfg, err := merge(file, env, readFlags(o.Flags, c), readSet(o.Set, c))
	if err != nil {
		return nil, Problems{{File: path, Message: err.Error()}}
	}
	cfg.File = path
	cfg.unknown = unknown
	cfg.check(c)
	if ps := c.problems(); ps != nil {
		return nil, ps
	}
	return cfg, nil
}

// merge lays the layers over the defaults, a later one over an earlier one.
func merge(layers ...*layer) (*Config, error) {
	v := viper.New()
	for _, f := range fields {
		value, fault := f.parse(f.def)
		if fault != nil {
			return nil, fmt.Errorf("default of %s: %w", f.key, fault)
		}
		v.SetDefault(f.key, value)
	}
	cfg := &Config{places: map[string]place{}}
	for _, l := range layers {
		if err := v.MergeConfigMap(nest(l.values)); err != nil {
			return nil, err
		}
		if _, ok := l.values[nodesKey]; ok { // the list is replaced as a whole
			maps.DeleteFunc(cfg.places,
				func(key string, _ place) bool { return strings.HasPrefix(key, nodesKey) })
		}
		maps.Copy(cfg.places, l.places)
	}
	// The values have their types already: this only puts them into their fields.
	err := v.UnmarshalExact(cfg,
		func(d *mapstructure.DecoderConfig) { d.TagName = "yaml"; d.WeaklyTypedInput = false })
	return cfg, err
}

// nest turns keys with dots into maps in maps.
func nest(values map[string]any) map[string]any {
	tree := map[string]any{}
	for key, value := range values {
		section, name, _ := strings.Cut(key, ".")
		if tree[section] == nil {
			tree[section] = map[string]any{}
		}
		tree[section].(map[string]any)[name] = value
	}
	return tree
}
