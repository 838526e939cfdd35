package crypto

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/poll"
)

// script makes a program of the text of a shell script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key-command")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeyCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	want := must[*MasterKey](t)(CreateMasterKey(path))
	other := must[*MasterKey](t)(newMasterKey(NewKey()))
	t.Setenv("IMGCLUSTER_SECRET_KEY", "secret")
	for name, c := range map[string]struct {
		command string
		next    string
	}{
		"a program and a file": {"cat " + path, ""},
		"no shell reads it": {
			script(t, `[ "$#" = 3 ] && [ "$1" = '$HOME' ] && [ "$3" = '"b"' ] && cat `+path) + ` $HOME a|b "b"`, "",
		},
		"no secrets": {script(t, `[ -z "$IMGCLUSTER_SECRET_KEY" ] && ! read line && cat `+path), ""},
		"two keys":   {script(t, "cat "+path+"; echo "+other.line()), other.ID()},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := KeySource{Command: c.command, File: path + ".none"}.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if keys.Own.ID() != want.ID() || (c.next == "") != (keys.Next == nil) ||
				keys.Next != nil && keys.Next.ID() != c.next {
				t.Errorf("got %v", keys)
			}
		})
	}
	t.Run("the environment comes first", func(t *testing.T) {
		t.Setenv(MasterKeyEnv, other.line())
		keys, err := KeySource{Command: "cat " + path}.Load(t.Context())
		if err != nil || keys.Own.ID() != other.ID() {
			t.Errorf("got %v, %v", keys, err)
		}
	})
}

func TestKeyCommandRefused(t *testing.T) {
	line := must[*MasterKey](t)(newMasterKey(NewKey())).line()
	for name, c := range map[string]struct {
		command string
		want    error
		says    string
	}{
		"no such program": {"/nowhere/at-all x", ErrKeyCommand, "/nowhere/at-all"},
		"fails": {
			script(t, "echo "+line+"; echo 'the vault is\tsealed\033[2J' >&2; exit 3"), ErrKeyCommand,
			`the vault is sealed\u001b[2J: exit status 3`,
		},
		"says much":       {script(t, "yes complaint | head -c 100000 >&2; exit 1"), ErrKeyCommand, "complaint"},
		"prints nothing":  {"true", ErrKeyMalformed, "no line with a key"},
		"prints too much": {script(t, "echo "+line+"; exec yes"), ErrKeyCommand, "more than 4096 bytes"},
		"another form":    {"echo " + strings.Repeat("Zm9v", 8), ErrKeyMalformed, "node.master_key_command"},
		"one key too many": {
			script(t, "echo "+line+"; echo "+line+"; echo "+line), ErrKeyMalformed, "more than two lines",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := KeySource{Command: c.command}.Load(t.Context())
			wantKind(t, err, c.want)
			if !strings.Contains(err.Error(), c.says) || len(err.Error()) > 2000 {
				t.Errorf("the error is %q", err)
			}
			if strings.Contains(err.Error(), strings.Fields(line)[2]) || strings.Contains(err.Error(), "Zm9v") {
				t.Errorf("the error has the key: %q", err)
			}
		})
	}
}

// TestKeyCommandStopped: what the command has started is ended with it, and does not keep the start waiting.
func TestKeyCommandStopped(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	command := script(t, "sleep 1000 & echo $! > "+pid+".tmp; mv "+pid+".tmp "+pid+"; wait")
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := KeySource{Command: command}.Load(ctx)
		done <- err
	}()
	poll.Until(t, 20*time.Second, "the command runs", func() bool {
		_, err := os.Stat(pid)
		return err == nil
	})
	cancel()
	err := <-done
	wantKind(t, err, ErrKeyCommand)
	if !errors.Is(err, context.Canceled) || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	text := strings.TrimSpace(string(must[[]byte](t)(os.ReadFile(pid))))
	poll.Until(t, 20*time.Second, "what the command started has ended", func() bool { return !running(text) })
}

// running reports whether there is a process that is not a zombie.
func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestNextKey(t *testing.T) {
	source := KeySource{File: filepath.Join(t.TempDir(), "master.key")}
	own := must[*MasterKey](t)(CreateMasterKey(source.File))
	if keys, err := source.Load(t.Context()); err != nil || keys.Next != nil || len(keys.All()) != 1 {
		t.Fatalf("got %v, %v", keys, err)
	}
	next := must[*MasterKey](t)(CreateMasterKey(source.NextFile()))
	keys, err := source.Load(t.Context())
	if err != nil || keys.Own.ID() != own.ID() || keys.Next.ID() != next.ID() || len(keys.All()) != 2 {
		t.Fatalf("got %v, %v", keys, err)
	}
	if err := os.Chmod(source.NextFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = source.Load(t.Context())
	wantKind(t, err, ErrKeyMode)
	// The same key in both places, as between the two steps of a change by hand, is one key.
	os.Remove(source.NextFile())
	if err := os.Link(source.File, source.NextFile()); err != nil {
		t.Fatal(err)
	}
	if keys, err := source.Load(t.Context()); err != nil || keys.Next != nil {
		t.Errorf("got %v, %v", keys, err)
	}
}
