package crypto

import (
	"fmt"
	"os"
	"sync/atomic"
)

// taken are the master keys that TakeMasterKeyEnv has found.
var taken atomic.Pointer[[]*MasterKey]

// TakeMasterKeyEnv takes the master key out of MasterKeyEnv, where it is set, for all KeySources of this
// process: it is no longer in the environment, for what the process starts or who reads /proc/PID/environ.
// Errors are those of MasterKeyFromEnv.
func TakeMasterKeyEnv() error {
	text := []byte(os.Getenv(MasterKeyEnv))
	defer clear(text)
	if len(text) == 0 {
		return nil
	}
	keys, err := parseMasters(text, MasterKeyEnv)
	if err != nil {
		return err
	}
	taken.Store(&keys)
	if err := os.Unsetenv(MasterKeyEnv); err != nil {
		return fmt.Errorf("take %s out of the environment: %w", MasterKeyEnv, err)
	}
	return wipeEnviron(MasterKeyEnv)
}
