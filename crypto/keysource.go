package crypto

import (
	"context"
	"errors"
	"os"
	"slices"
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
