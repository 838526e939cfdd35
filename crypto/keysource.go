package crypto

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"imgcluster/cluster/durable"
)

// NextSuffix is what a master key file's name has after it where it is the one that the cluster is to change
// to.
const NextSuffix = ".next"

// KeySource is where a host has the cluster's master key.
type KeySource struct {
	Command string // that prints it; empty: none
	File    string
}

// MasterKeys are those that a host has.
type MasterKeys struct {
	Own  *MasterKey
	Next *MasterKey // that the cluster is to change to, or has changed to; nil: none
}

// All lists them.
func (k MasterKeys) All() []*MasterKey {
	if k.Next == nil {
		return []*MasterKey{k.Own}
	}
	return []*MasterKey{k.Own, k.Next}
}

// Load reads the master key from MasterKeyEnv, else from the command where there is one, else from the file;
// and the next one from the second line of the first two, else from the file's name and NextSuffix where
// there is such a file. Errors are those of LoadMasterKey, or ErrKeyCommand.
func (s KeySource) Load(ctx context.Context) (MasterKeys, error) {
	return s.load(ctx, LoadMasterKey)
}

// LoadOrCreate is Load, and makes the file where there is none and it is needed.
func (s KeySource) LoadOrCreate(ctx context.Context) (MasterKeys, error) {
	return s.load(ctx, LoadOrCreateMasterKey)
}

func (s KeySource) load(ctx context.Context, file func(path string) (*MasterKey, error)) (MasterKeys, error) {
	var keys []*MasterKey
	var err error
	if found := taken.Load(); found != nil {
		keys = slices.Clone(*found)
	} else if text := os.Getenv(MasterKeyEnv); text != "" {
		keys, err = parseMasters([]byte(text), MasterKeyEnv)
	} else if s.Command != "" {
		keys, err = masterKeysFromCommand(ctx, s.Command)
	} else {
		keys = []*MasterKey{nil}
		keys[0], err = file(s.File)
	}
	if err != nil {
		return MasterKeys{}, err
	}
	if len(keys) == 1 {
		next, err := s.LoadNext()
		if err != nil {
			return MasterKeys{}, err
		}
		keys = append(keys, next)
	}
	held := MasterKeys{Own: keys[0], Next: keys[1]}
	if held.Next != nil && held.Next.ID() == held.Own.ID() {
		held.Next = nil
	}
	return held, nil
}

// NextFile is the path of the next master key.
func (s KeySource) NextFile() string { return s.File + NextSuffix }

// LoadNext reads the next master key's file, nil where there is none.
func (s KeySource) LoadNext() (*MasterKey, error) {
	m, err := LoadMasterKey(s.NextFile())
	if errors.Is(err, ErrKeyMissing) {
		return nil, nil
	}
	return m, err
}

// Promote moves the next master key's file to where the master key's is, which keeps the ID of its key as its
// name's end: backups may need it. Others may do the same at the same time, and it may be done already. The
// error, of kind ErrKeyUnwritable, says what to do by hand.
func (s KeySource) Promote(from, to string) error {
	byHand := func(err error, hint string) error {
		return &Error{
			Kind: ErrKeyUnwritable, Detail: "the master key is " + to + " now, and this host starts with " + from,
			Err: err, hint: hint,
		}
	}
	switch {
	case os.Getenv(MasterKeyEnv) != "" || taken.Load() != nil:
		return byHand(nil, "put the new key alone into "+MasterKeyEnv)
	case s.Command != "":
		return byHand(nil, "have node.master_key_command print the new key alone")
	}
	next, err := s.LoadNext()
	if err == nil && next != nil && next.ID() == to {
		// The old key first gets its other name, and then its place is taken: at no time is there none.
		err = os.Link(s.File, s.File+"."+from)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Rename(s.NextFile(), s.File)
		}
		if err == nil {
			return durable.SyncDir(filepath.Dir(s.File))
		}
	}
	if own, failed := LoadMasterKey(s.File); failed == nil && own.ID() == to {
		return nil // another node of this host has done it
	}
	return byHand(err, "move the new key's file to "+s.File+", mode 0400")
}
