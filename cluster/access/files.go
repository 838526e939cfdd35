package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

const (
	// filesCheckEvery is how long after a look at its files a certificate is used without another one.
	filesCheckEvery = 5 * time.Second
	// filesBytesMax bounds each of them; a long chain has some ten thousand bytes.
	filesBytesMax = 1 << 20
)

// Files is a certificate of the operator's, read again when its files change. It is safe for concurrent use.
type Files struct {
	names    [2]string // of the chain and the key, in PEM
	reloaded func(leaf *x509.Certificate, err error)
	current  atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // held to look at the files
	seen    [2]fs.FileInfo
	checked time.Time
}

// OpenFiles reads the certificate. reloaded is called after each later change of the files, with the new
// certificate, or with why the old one stays in use. The errors have a hint.
func OpenFiles(chain, key string, reloaded func(leaf *x509.Certificate, err error)) (*Files, error) {
	f := &Files{names: [2]string{chain, key}, reloaded: reloaded, checked: time.Now()}
	f.look()
	c, err := f.read()
	if err != nil {
		return nil, err
	}
	f.current.Store(c)
	return f, nil
}

// Get returns the certificate as its files have it, or had it when they were last good.
func (f *Files) Get() (*tls.Certificate, error) {
	if f.mu.TryLock() { // who comes meanwhile does not wait for the disk
		defer f.mu.Unlock()
		if time.Since(f.checked) >= filesCheckEvery {
			f.checked = time.Now()
			f.reload()
		}
	}
	return f.current.Load(), nil
}

// Reload looks at the files now.
func (f *Files) Reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checked = time.Now()
	f.reload()
}

// Leaf returns the certificate without its chain.
func (f *Files) Leaf() *x509.Certificate { return f.current.Load().Leaf }

// reload reads files that have changed. The caller holds mu.
func (f *Files) reload() {
	if !f.look() {
		return
	}
	c, err := f.read()
	if err != nil {
		f.reloaded(nil, err)
		return
	}
	f.current.Store(c)
	f.reloaded(c.Leaf, nil)
}

// look reports whether a file is another one, or another version, than when it was last called.
func (f *Files) look() (changed bool) {
	for i, name := range f.names {
		info, err := os.Stat(name)
		was := f.seen[i]
		switch {
		case err != nil:
			info = nil // it is missed once
			changed = changed || was != nil
		case was == nil || !os.SameFile(was, info) || !was.ModTime().Equal(info.ModTime()) ||
			was.Size() != info.Size():
			changed = true
		}
		f.seen[i] = info
	}
	return changed
}

// read reads the pair.
func (f *Files) read() (*tls.Certificate, error) {
	chain, err := readPEM(f.names[0], "")
	if err != nil {
		return nil, err
	}
	key, err := readPEM(f.names[1], "certificate's key")
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(chain, key)
	clear(key)
	if err != nil {
		const hint = "give the PEM files of a certificate, its chain and its key: tls.cert_file, tls.key_file"
		return nil, unusable(hint, "certificate %s with key %s: %w", f.names[0], f.names[1], err)
	}
	return &c, nil
}

// readPEM reads one of the files. A secret one, which what names, must be its owner's alone.
func readPEM(name, what string) ([]byte, error) {
	const hint = "give the path of a PEM file that this user can read"
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() { // to open a pipe would wait
		return nil, unusable(hint, "certificate file %s cannot be read: %w", name, orIrregular(err))
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, unusable(hint, "certificate file %s cannot be read: %w", name, err)
	}
	defer file.Close()
	if what != "" {
		if err := crypto.CheckMode(file, what); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, filesBytesMax+1))
	if err == nil && len(text) > filesBytesMax {
		err = fmt.Errorf("it has more than %d bytes", filesBytesMax)
	}
	if err != nil {
		return nil, unusable(hint, "certificate file %s cannot be read: %w", name, err)
	}
	return text, nil
}

func orIrregular(err error) error {
	if err == nil {
		err = fs.ErrInvalid
	}
	return err
}

func unusable(hint, format string, args ...any) error {
	return image.Errorf(image.KindInvalid, format, args...).WithHint(hint)
}

// Served returns why clients will refuse a certificate that a node at host serves, nil when they need not.
func Served(leaf *x509.Certificate, host string) error {
	if err := outOfDate(leaf, time.Now()); err != nil {
		return err
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return &CertificateError{
			Reason: ErrIdentity,
			Detail: fmt.Sprintf("the certificate of %s is not for the host %.200q: %v", subject(leaf), host, err),
			hint:   "have it name the node's host of cluster.nodes (tls.cert_file)",
		}
	}
	return nil
}
