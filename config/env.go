package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Variables that start with envPrefix and are no settings: the commands read them.
const (
	// EnvConfig is the default of --config.
	EnvConfig = "IMGCLUSTER_CONFIG"
	// EnvMasterKey is the master key itself; never read here, crypto has it in its hints.
	EnvMasterKey = "IMGCLUSTER_MASTER_KEY"
	// EnvAccessKey and EnvSecretKey are the ID and the secret of an access key.
	EnvAccessKey = "IMGCLUSTER_ACCESS_KEY"
	EnvSecretKey = "IMGCLUSTER_SECRET_KEY"
)

var notSettings = []string{EnvConfig, EnvMasterKey, EnvAccessKey, EnvSecretKey}

// kubernetesName matches the variables that Kubernetes gives every container of a namespace with a
// service named imgcluster, or imgcluster-something.
var kubernetesName = regexp.MustCompile(`^IMGCLUSTER_(?:.*_)?` +
	`(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$`)

// ofKubernetes reports whether a variable is one that Kubernetes makes of a service.
func ofKubernetes(name, text string) bool {
	return kubernetesName.MatchString(name) ||
		strings.HasSuffix(name, "_PORT") && strings.Contains(text, "://")
}

// readEnv reads the settings from variables such as IMGCLUSTER_CLUSTER_REPLICAS=2. An empty one counts as not
// set. Unknown ones, which may be another program's, are returned as warnings, without their value: it may be
// a secret.
func readEnv(env []string, c *collector) (*layer, Problems) {
	var unknown collector
	l := newLayer()
	var names []string
	for _, name := range notSettings {
		names = append(names, strings.TrimPrefix(name, envPrefix))
	}
	byEnv := map[string]*field{}
	for _, f := range fields {
		names = append(names, strings.TrimPrefix(f.env, envPrefix))
		byEnv[f.env] = f
	}
	for _, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(notSettings, name) || text == "" {
			continue
		}
		at := place{source: "env " + plain(name)}
		if f := byEnv[name]; f != nil {
			l.setText(f, text, at, c)
		} else if !ofKubernetes(name, text) {
			const otherwise = "unset it; " + listHint
			// Compared without the prefix, which all have.
			hint := suggest(strings.TrimPrefix(name, envPrefix), names, otherwise)
			if hint != otherwise {
				hint = strings.Replace(hint, "mean ", "mean "+envPrefix, 1)
			}
			unknown.fault(at, "", faultf(hint, "no setting has this name"))
		}
	}
	return l, unknown.problems()
}

const listHint = "`imgcluster config show` lists the settings"

// setText reads the text form of a setting into the layer.
func (l *layer) setText(f *field, text string, at place, c *collector) {
	value, fault := f.parse(text)
	if fault != nil {
		c.fault(at, f.key, fault)
		return
	}
	l.values[f.key] = value
	l.places[f.key] = at
}

// flagSource begins the source of what a flag has set.
const flagSource = "flag "

// flagKey annotates a flag with the key of its setting.
const flagKey = "imgcluster_setting"

// flagValue is the text of a flag; Load reads and checks it with everything else.
type flagValue struct {
	text string
	kind string
}

func (v *flagValue) String() string     { return v.text }
func (v *flagValue) Type() string       { return v.kind }
func (v *flagValue) Set(s string) error { v.text = s; return nil }

// AddFlag adds a flag for a setting, with its description and default: AddFlag(fs,
// "node.data_dir", "data-dir") adds --data-dir. Like pflag itself it panics on a mistake of the
// program, here a key that is no setting.
func AddFlag(fs *pflag.FlagSet, key, name string) {
	f := byKey[key]
	if f == nil {
		panic("config: no setting " + key)
	}
	flag := fs.VarPF(&flagValue{text: f.def, kind: f.kind()}, name, "", f.help)
	flag.Annotations = map[string][]string{flagKey: {key}}
}

// readFlags reads the settings from the flags that were given.
func readFlags(fs *pflag.FlagSet, c *collector) *layer {
	l := newLayer()
	if fs == nil {
		return l
	}
	fs.VisitAll(func(flag *pflag.Flag) {
		if keys := flag.Annotations[flagKey]; flag.Changed && len(keys) == 1 {
			l.setText(byKey[keys[0]], flag.Value.String(), place{source: flagSource + "--" + flag.Name}, c)
		}
	})
	return l
}

// readSet reads the settings from texts such as cluster.replicas=2.
func readSet(set []string, c *collector) *layer {
	l := newLayer()
	for _, s := range set {
		key, text, ok := strings.Cut(s, "=")
		at := place{source: flagSource + "--set"}
		switch f := byKey[key]; {
		case !ok:
			c.fault(at, "", faultf("write --set key=value, such as --set cluster.replicas=1",
				"%q has no value", plain(s)))
		case f == nil:
			hint := suggest(key, slices.Sorted(maps.Keys(byKey)), listHint)
			c.fault(at, "", faultf(hint, "no setting has the name %s", quote(key)))
		default:
			l.setText(f, text, at, c)
		}
	}
	return l
}
