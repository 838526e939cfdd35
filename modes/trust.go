package modes

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/oserr"
	"imgcluster/config"
	"imgcluster/crypto"
)

// authenticate gives a client whom it trusts, and what it shows: the access key that the environment names,
// else the administrator's certificate where this user can read the master key, else the access key of this
// user's file. Where the nodes serve plain HTTP it is nothing.
func (e *env) authenticate(cfg *config.Config, o *client.Options) error {
	if !cfg.Secured() {
		return nil
	}
	key, named, err := accessKey()
	if err != nil {
		return err
	}
	var authority *access.Authority
	if !named {
		if authority, err = e.authority(cfg); err != nil {
			return err
		}
	}
	roots, err := trusted(cfg, authority)
	if err != nil {
		return err
	}
	var own *access.Certificate
	if authority != nil {
		own = authority.Admin()
	} else {
		o.Key = key
	}
	o.TLS = access.Client(roots, own)
	return nil
}

// authority returns the cluster's certificate authority, nil where this user cannot read the master key.
func (e *env) authority(cfg *config.Config) (*access.Authority, error) {
	keys, err := e.masterKeys(cfg)
	switch {
	case errors.Is(err, crypto.ErrKeyMissing) || errors.Is(err, fs.ErrPermission):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return access.NewAuthority(crypto.NewRing(keys.All()...), cfg.Cluster.Name)
}

// keySource is where this host has the master key by a configuration.
func keySource(cfg *config.Config) crypto.KeySource {
	return crypto.KeySource{Command: cfg.KeyCommand(), File: cfg.Local.MasterKeyFile}
}

// masterKeys reads the master keys of this host, once in a command, since that may run a program.
func (e *env) masterKeys(cfg *config.Config) (crypto.MasterKeys, error) {
	source := keySource(cfg)
	if keys, ok := e.masters[source]; ok {
		return keys, nil
	}
	keys, err := source.Load(e.ctx)
	if err == nil {
		e.masters = map[crypto.KeySource]crypto.MasterKeys{source: keys}
	}
	return keys, err
}

// caBytesMax bounds the file of the certificates that clients trust.
const caBytesMax = 4 << 20

// trusted returns the certificates that nodes' must be signed by; nil for those that the host trusts.
func trusted(cfg *config.Config, authority *access.Authority) (*x509.CertPool, error) {
	path := cfg.CAFile()
	if path == "" {
		return nil, nil
	}
	text, err := readBounded(path, caBytesMax)
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return nil, usagef("make it readable for this user", "%s cannot be read: %w", path, oserr.NoPath(err))
	case authority != nil && path == cfg.OwnCAFile():
		text = authority.CertificatePEM() // it would be the same
	default:
		return nil, usagef("copy ca.crt there from a node; it is beside the configuration (client.ca_file)",
			"there is no %s, by which to know the cluster's nodes", path)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, usagef("copy ca.crt there from a node (client.ca_file)", "%s has no certificate", path)
	}
	return roots, nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return text, err
}
