package crypto

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
)

const (
	// MasterKeyEnv is the variable in which a node takes the line of a key file instead.
	MasterKeyEnv = "IMGCLUSTER_MASTER_KEY"
	// keyFileBytesMax bounds a key file; a real one has about 300 bytes.
	keyFileBytesMax = 4096
	keyFileMode     = 0o400
	// loadOrCreateTries bounds the rounds in which the file appears and disappears between two checks.
	loadOrCreateTries = 3

	keyFileComment = "# The master key of an imgcluster. Who has it can read every image, " +
		"and without it every image is\n# lost. Keep a copy in a safe place, " +
		"and give each node of the cluster this same file.\n"
)

// CreateMasterKey makes a new master key and its file, mode 0400, and its folder with mode 0700 if
// there is none. The file appears whole and durable or not at all, and one that exists is never
// touched: of several processes that start together exactly one creates it, the others get
// ErrKeyExists.
func CreateMasterKey(path string) (*MasterKey, error) {
	m, err := newMasterKey(NewKey())
	if err != nil {
		return nil, err
	}
	text := m.file()
	defer clear(text)
	if err = durable.MakeDir(filepath.Dir(path)); err == nil {
		err = durable.WriteNew(path, text, keyFileMode)
	}
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, fs.ErrExist):
		return nil, &Error{
			Kind:   ErrKeyExists,
			Detail: path + " exists",
			hint:   "use it, or choose another path; it is never overwritten",
		}
	}
	hint := "choose a folder that this user can write to, on a file system that has hard links"
	if oserr.ClassOf(err) != oserr.Denied { // as a file system without hard links says too
		hint = cmp.Or(oserr.Hint(err, path), hint)
	}
	return nil, &Error{
		Kind:   ErrKeyUnwritable,
		Detail: "cannot make master key file " + path,
		Err:    err,
		hint:   hint,
	}
}

// LoadMasterKey reads a master key file. Its errors are of kind ErrKeyMissing, ErrKeyUnreadable,
// ErrKeyMode, ErrKeyTooLarge, ErrKeyMalformed or ErrKeyMismatch.
func LoadMasterKey(path string) (*MasterKey, error) {
	// Checked before it is opened: to open a pipe would wait for its writer.
	if info, err := os.Stat(path); err != nil {
		return nil, loadError(path, err)
	} else if !info.Mode().IsRegular() {
		return nil, &Error{
			Kind:   ErrKeyUnreadable,
			Detail: path + " is not a regular file",
			hint:   "give the path of the master key file itself",
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, loadError(path, err)
	}
	defer f.Close()
	text, err := readKeyFile(path, f)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return parseMaster(text, path)
}

// readKeyFile judges the open file, not its name, so that nothing can change in between.
func readKeyFile(path string, f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, loadError(path, err)
	}
	if err := checkMode(f, info, "master key file", "; where that cannot be, "+
		"have the secret mounted with mode 0400, or give its line in "+MasterKeyEnv); err != nil {
		return nil, err
	}
	text := make([]byte, keyFileBytesMax+1) // which grows nowhere and leaves no copies
	n, err := io.ReadFull(f, text)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(text)
		return nil, loadError(path, err)
	}
	if text = text[:n]; n > keyFileBytesMax {
		clear(text)
		return nil, &Error{
			Kind: ErrKeyTooLarge, Detail: fmt.Sprintf("%s is larger than %d bytes", path, keyFileBytesMax),
			hint: "this is not a master key file: check the path",
		}
	}
	return text, nil
}

// CheckMode refuses an open file with a key that others than its owner can use; what names it in the error,
// of kind ErrKeyMode.
func CheckMode(f *os.File, what string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkMode(f, info, what, "")
}

func checkMode(f *os.File, info fs.FileInfo, what, otherwise string) error {
	if private(f, info) {
		return nil
	}
	return &Error{
		Kind: ErrKeyMode,
		Detail: fmt.Sprintf("%s %s has mode %04o: others than its owner can use it", what, f.Name(),
			info.Mode().Perm()),
		hint: "chmod 400 " + printable.Argument(f.Name()) + otherwise,
	}
}

func loadError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{
			Kind: ErrKeyMissing, Detail: "there is no master key file " + path, Err: err,
			hint: "copy it from another node of this cluster, or give its line in " + MasterKeyEnv +
				"; for a new cluster, make one: imgcluster init",
		}
	}
	return &Error{
		Kind: ErrKeyUnreadable, Detail: "cannot read master key file " + path, Err: err,
		hint: cmp.Or(
			oserr.Hint(err, path),
			"run as the user that owns the file, give the right path, "+
				"or give the key's line in "+MasterKeyEnv,
		),
	}
}

// LoadOrCreateMasterKey loads the file, and makes it when there is none. Processes that do this
// together all get the same key, and none before the file is durable.
func LoadOrCreateMasterKey(path string) (m *MasterKey, err error) {
	for range loadOrCreateTries {
		m, err = LoadMasterKey(path)
		if err == nil {
			return m, syncLoaded(path)
		}
		if !errors.Is(err, ErrKeyMissing) {
			return nil, err
		}
		m, err = CreateMasterKey(path)
		if !errors.Is(err, ErrKeyExists) {
			return m, err
		}
	}
	return nil, err
}

// syncLoaded makes the name of a key file durable before the key is used: the process that made
// it may not have come to that yet. A folder that this user may not even list was not made by one
// that starts with us.
func syncLoaded(path string) error {
	err := durable.SyncDir(filepath.Dir(path))
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return &Error{
		Kind: ErrKeyUnreadable, Detail: "cannot sync the folder of master key file " + path, Err: err,
		hint: cmp.Or(oserr.Hint(err, path), "check the disk"),
	}
}
