package crypto

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// takeEnv makes this test binary a process that takes the master key out of its environment.
const takeEnv = "TEST_TAKES_THE_KEY"

// TestTakeMasterKeyEnv: a process that has taken its master key out of the environment shows it nowhere, has
// it still, and does not give it to what it starts.
func TestTakeMasterKeyEnv(t *testing.T) {
	if os.Getenv(takeEnv) != "" {
		takeAndLook(t)
		return
	}
	m := must[*MasterKey](t)(newMasterKey(NewKey()))
	other := must[*MasterKey](t)(newMasterKey(NewKey()))
	for name, text := range map[string]string{
		"one key": m.line(), "a key file": string(m.file()), "two keys": m.line() + "\n" + other.line(),
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTakeMasterKeyEnv$", "-test.v")
			cmd.Env = append(os.Environ(), "A=b", MasterKeyEnv+"="+text, takeEnv+"="+m.ID(), "C=d")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func takeAndLook(t *testing.T) {
	secret := strings.Fields(os.Getenv(MasterKeyEnv))
	key := []byte(secret[len(secret)-1])
	shown := func() bool { return bytes.Contains(must[[]byte](t)(os.ReadFile("/proc/self/environ")), key) }
	if !shown() {
		t.Fatal("the key is not in /proc/self/environ before")
	}
	if err := TakeMasterKeyEnv(); err != nil {
		t.Fatal(err)
	}
	if shown() {
		t.Error("the key is in /proc/self/environ")
	}
	environ := must[[]byte](t)(os.ReadFile("/proc/self/environ"))
	for _, kept := range []string{"A=b\x00", takeEnv + "=", "C=d"} {
		if !bytes.Contains(environ, []byte(kept)) {
			t.Errorf("the environment lacks %q", kept)
		}
	}
	if out := must[[]byte](t)(exec.Command("/bin/sh", "-c", "set").Output()); bytes.Contains(out, key) {
		t.Error("a child has the key")
	}
	for range 2 {
		keys := must[MasterKeys](t)(KeySource{File: "missing"}.Load(t.Context()))
		if keys.Own.ID() != os.Getenv(takeEnv) {
			t.Errorf("the key is %v now", keys.Own)
		}
	}
}

// TestTakeNothing: without the variable nothing changes, and a malformed one is refused.
func TestTakeNothing(t *testing.T) {
	t.Setenv(MasterKeyEnv, "")
	if err := TakeMasterKeyEnv(); err != nil || taken.Load() != nil {
		t.Error(err)
	}
	t.Setenv(MasterKeyEnv, "imgcluster-master-key-v1 x y")
	if err := TakeMasterKeyEnv(); !errors.Is(err, ErrKeyMalformed) || taken.Load() != nil {
		t.Error(err)
	}
}
