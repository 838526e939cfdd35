package modes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"imgcluster/cluster/access"
	"imgcluster/cluster/printable"
	"imgcluster/config"
)

// credentialsBytesMax bounds the file of an access key.
const credentialsBytesMax = 4 << 10

// accessKey returns the access key of this user: that of the environment, else that of the file in the user's
// configuration folder, else none. named reports whether the environment has it. There is no option for it: a
// command line is seen by others.
func accessKey() (key access.Credentials, named bool, err error) {
	id, secret := os.Getenv(config.EnvAccessKey), os.Getenv(config.EnvSecretKey)
	switch {
	case id != "" && secret != "":
		key, err = access.NewCredentials(id, secret)
		if err != nil {
			err = usagef("copy both as imgcluster key add has shown them", "%s and %s: %w", config.EnvAccessKey,
				config.EnvSecretKey, err)
		}
		return key, true, err
	case id != "" || secret != "":
		return key, true, usagef("set both, or none", "of %s and %s only one is set", config.EnvAccessKey,
			config.EnvSecretKey)
	}
	path, err := credentialsFile()
	if err != nil {
		return key, false, nil // there is no such folder, and so no file
	}
	key, err = readCredentials(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return key, false, err
}

// credentialsFile is where a user's access key is kept.
func credentialsFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "imgcluster", "credentials.yaml"), err
}

// readCredentials reads an access key from a file that nobody else can read. The errors quote nothing of it.
func readCredentials(path string) (key access.Credentials, err error) {
	f, err := os.Open(path)
	if err != nil {
		return key, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return key, err
	}
	if !info.Mode().IsRegular() {
		return key, usagef("make it a file", "%s is no file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return key, usagef("chmod 600 "+printable.Argument(path), "%s is open to others (mode %04o)", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, credentialsBytesMax+1))
	if err != nil {
		return key, err
	}
	var doc struct {
		AccessKey string `yaml:"access_key"`
		SecretKey string `yaml:"secret_key"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if len(text) > credentialsBytesMax || d.Decode(&doc) != nil { // its error would quote the file
		return key, usagef("write two lines: access_key: ID, and secret_key: SECRET",
			"%s is not the YAML of an access key", path)
	}
	if key, err = access.NewCredentials(doc.AccessKey, doc.SecretKey); err != nil {
		return key, usagef("copy both as imgcluster key add has shown them", "%s: %w", path, err)
	}
	return key, nil
}

// useKey says how a key is used by commands, without its secret.
func useKey(id string) string {
	path, err := credentialsFile()
	if err != nil {
		path = "credentials.yaml"
	}
	return fmt.Sprintf("Commands read it from %s=%s and %s, or from access_key and secret_key in %s (mode 0600)",
		config.EnvAccessKey, id, config.EnvSecretKey, path)
}
