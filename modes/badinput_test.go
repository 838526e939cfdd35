package modes

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgcluster/modes/term"

	"imgcluster/modes/runlog/logtest"
)

// Logs of runs, for report.
const (
	runLine = `{"type":"run","schema":1,"started":"2026-01-02T15:04:05Z","profile":"quick","nodes":[1],` +
		`"count":1,"concurrency":1,"delivery":"broadcast","replicas":1}` + "\n"
	oneUpload = `{"type":"upload","seq":1,"name":"a.png","class":"small","bytes":10,"start_s":0,` +
		`"latency_s":0.1,"ok":true,"owner":1,"replicas":[1],"attempts":1,"sent_bytes":10}` + "\n"
	failedUpload = `{"type":"upload","seq":2,"name":"b.png","class":"small","bytes":10,"start_s":0,` +
		`"latency_s":0.1,"ok":false,"error":"no quorum","attempts":3,"sent_bytes":0}` + "\n"
	endLine   = `{"type":"end","elapsed_s":0.1}` + "\n"
	goodLog   = runLine + oneUpload + endLine
	failedLog = runLine + oneUpload + failedUpload + endLine
	brokenLog = runLine + oneUpload + "{nonsense\n" + oneUpload
	cutLog    = goodLog + `{"type":"upl`
	chaosLog  = `{"type":"run","schema":1,"nodes":[1],"count":2,"concurrency":1,"replicas":1,"faults":1}` + "\n"
	timedLog  = `{"type":"run","schema":1,"nodes":[1],"count":0,"concurrency":1,"replicas":1,"duration_s":5}` +
		"\n" + `{"type":"end","elapsed_s":5.1}` + "\n"
)

const (
	farNodes = "cluster.nodes=1=10.0.0.1:1:2,2=10.0.0.2:1:2,3=10.0.0.3:1:2" // not on this machine
	oneNode  = "cluster.nodes=1=127.0.0.1:8001:9001"
)

// TestBadInput gives mistakes to every command. Each is refused with an exit status, a text and a next
// step, and nothing on standard output. No cluster runs.
func TestBadInput(t *testing.T) {
	dir := badFolder(t)
	t.Chdir(dir)
	for _, test := range []struct {
		args   string
		status int
		said   string
	}{
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"statsu", 2, "did you mean stat or status"},
		{"config frobnicate", 2, `unknown command "config frobnicate"`},
		{"ls --frobnicate", 2, "unknown flag: --frobnicate"},
		{"ls --frobnicate", 2, "see imgcluster ls --help"},
		{"ls a b", 2, `ls does not take the argument "b"`},
		{"get", 2, "use: imgcluster get USER/NAME"},
		{"get photo.png", 2, `"photo.png" is not USER/NAME`},
		{"get alice/../photo.png", 2, `has the part ".."`},
		{"get alice/photo.png -o missing/photo.png", 2, "there is no folder missing"},
		{"get alice/one.png", 2, "one.png exists"},
		{"get alice/none", 3, "imgcluster up"},
		{"put", 2, "put is missing an argument"},
		{"put missing.png", 2, "missing.png: no such file or directory"},
		{"put missing.png folder", 2, "nothing was sent"},
		{"put missing.png one.png folder", 3, "not sent: missing.png: no such file or directory"},
		{"put missing.png one.png folder", 3, "3 of 3 images were not stored"},
		{"put /dev/null", 2, "/dev/null is not a file: give it a name of its own with --name"},
		{"put --name a.png /dev/null", 2, "it is empty"},
		{"put --name a.png /dev/zero", 2, "it is larger than limits.image_bytes"},
		{"put folder", 2, "folder is a folder"},
		{"put empty.png", 2, "empty.png is empty"},
		{"put large.png", 2, "large.png is larger than limits.image_bytes, 64MiB"},
		{"put -", 2, "add --name"},
		{"put --name a.png -", 2, "standard input: it is empty"},
		{"put --name a.png one.png two.png", 2, "--name with 2 files"},
		{"put one.png sub/one.png", 2, `would both be stored as "one.png"`},
		{"put --name ../a.png one.png", 2, `has the part ".."`},
		{"put --user a/b one.png", 2, "contains a slash"},
		{"put one.png two.png", 3, "2 of 2 images were not stored"},
		{"rm alice", 2, "is not USER/NAME"},
		{"ls", 3, "no node answers"},
		{"stat alice/a", 3, "no node answers"},
		{"status", 3, "start them with: imgcluster up"},
		{"status --set log.level=warn", 3, "start them with: imgcluster up --set log.level=warn"},
		{"server", 2, "1, 2, 3"},
		{"server --id 9", 2, "unknown node ID 9"},
		{"server --id 4294967297", 2, "add --id with one of the configuration's node IDs"},
		{"member add --id 4294967297 --host h --api-port 1 --raft-port 2", 2, "--id 4294967297"},
		{"server --id x", 2, `invalid argument "x" for "--id" flag`},
		{"server --id 1 --log-level loud", 2, "log.level"},
		{"stress", 3, "start them with: imgcluster up"},
		{"stress --count 0", 2, "give --count a number from 1"},
		{"stress --count -3", 2, "a run of -3 uploads"},
		{"stress --concurrency 0", 2, "--concurrency between 1 and 1024"},
		{"stress --profile huge", 2, "use one of demo, extreme, quick"},
		{"stress --delivery pigeon", 2, "use broadcast, announce, relay or auto"},
		{"stress --user a/b", 2, "contains a slash"},
		{"stress --log missing/log.jsonl", 2, "the log missing/log.jsonl: no such file or directory"},
		{"stress --log folder", 2, "name a file that can be written with --log"},
		{"stress --log /dev/null", 2, "is not a file"},
		{"stress --min-pixels 9 --max-pixels 20", 2, "--min-pixels"},
		{"stress --min-pixels 300 --max-pixels 200", 2, "swap"},
		{"stress --images missing", 2, "--images"},
		{"stress --images one.png", 2, "one.png is not a folder"},
		{"stress --images empty", 2, "empty/x/y is empty"},
		{"stress --chaos", 3, "start them with: imgcluster up"},
		{"stress --faults 3", 2, "add --chaos"},
		{"stress --rate -1", 2, "give --rate a number above 0"},
		{"stress --rate abc", 2, `invalid argument "abc" for "--rate" flag: want a number`},
		{"stress --seed -1", 2, `for "--seed" flag: want a whole number from 0`},
		{"stress --seed 99999999999999999999", 2, `for "--seed" flag: the number is out of range`},
		{"stress --users two", 2, `for "--users" flag: want a whole number`},
		{"verify --node x", 2, `for "--node" flag: want whole numbers, such as 1,3`},
		{"stress --json=maybe", 2, `for "--json" flag: want true or false`},
		{"stress --rate 0", 2, "give --rate a number above 0"},
		{"stress --rate NaN", 2, "give --rate a number above 0"},
		{"stress --rate 1000000", 2, "up to 100000"},
		{"stress --rate 5 --arrivals sometimes", 2, "use --arrivals constant or poisson"},
		{"stress --arrivals poisson", 2, "add --rate"},
		{"stress --rate 5 --concurrency 2000", 2, "--concurrency between 1 and 1024"},
		{"stress --duration 1m --count 5", 2, "--count and --duration both"},
		{"stress --duration -1s", 2, "give --duration a time"},
		{"stress --duration 9000h", 2, "give --duration up to 720h"},
		{"stress --duration 5", 2, `for "--duration" flag: want a time, such as 90s`},
		{"stress --duration abc", 2, `for "--duration" flag: want a time, such as 90s`},
		{"stress --duration 5s --warmup 6s", 2, "less than --duration"},
		{"stress --duration 5s --warmup 5s", 2, "less than --duration"},
		{"stress --warmup -1s", 2, "a warm-up of -1 s"},
		{"stress --mix read", 2, "want read=PERCENT"},
		{"stress --mix read=x", 2, "want read=PERCENT"},
		{"stress --mix write=20", 2, "want read=PERCENT"},
		{"stress --mix read=100", 2, "some operations must upload"},
		{"stress --mix read=-1", 2, "some operations must upload"},
		{"stress --users 0", 2, "give --users a number from 1"},
		{"stress --users 20000", 2, "between 1 and 10000"},
		{"stress --verify --count 2000000", 2, "give a smaller --count"},
		{"stress --chaos --duration 10s", 2, "give --count instead of --duration"},
		{"stress --cleanup --keep", 2, "contradict"},
		{"stress --images large", 2, "limits.image_bytes allows 67108864"},
		{"stress --resume missing.jsonl", 2, "missing.jsonl: no such file or directory"},
		{"stress --resume folder", 2, "it is a folder"},
		{"stress --resume one.png", 2, "not the log of a run"},
		{"stress --resume broken.jsonl", 2, "line 3"},
		{"stress --resume good.jsonl", 2, "is complete: all 1 uploads succeeded"},
		{"stress --resume chaos.jsonl", 2, "a run with faults, which cannot be resumed"},
		{"stress --resume packed.jsonl.gz", 2, "unpack it first: gzip -d packed.jsonl.gz"},
		{"stress --resume mark.jsonl", 2, "tail -c +4 mark.jsonl"},
		{"stress --resume utf16.jsonl", 2, "iconv -f UTF-16 -t UTF-8"},
		{"stress --resume runs.jsonl", 2, "more than one run: line 4"},
		{"stress --log packed.jsonl.gz", 2, "is there, and is not the log of a run"},
		{"clean --log runs.jsonl", 2, "tail -n +4 LOG"},
		{"report runs.jsonl", 2, "head -n 3 LOG > first.jsonl; tail -n +4 LOG > next.jsonl"},
		{"report good.jsonl --compare runs.jsonl", 2, "more than one run: line 4"},
		{"report utf16.jsonl", 2, "not UTF-8: line 1"},
		{"report cut.jsonl.gz", 2, "compressed: line 1: the compressed data is truncated or damaged"},
		{"stress --resume timed.jsonl", 2, "is complete: it took its 5s"},
		{"stress --resume failed.jsonl --chaos", 2, "make a new run with --chaos"},
		{"stress --resume two.jsonl --rate 3", 2, "--rate is 3 here, and 0 in the log"},
		{"stress --resume two.jsonl --mix read=20", 2, "--mix is read=20 here, and read=0 in the log"},
		{"stress --resume two.jsonl", 3, "start them with: imgcluster up"},
		{"clean --user a/b", 2, "contains a slash"},
		{"clean --log missing.jsonl", 2, "missing.jsonl: no such file or directory"},
		{"clean --log one.png", 2, "not the log of a run"},
		{"clean --log good.jsonl --user bob", 2, "leave out --user"},
		{"clean", 3, "start them with: imgcluster up"},
		{"stress --chaos --faults 31", 2, "31 faults in a run of 30 uploads"},
		{"stress --chaos --faults 0", 2, "a run with 0 faults"},
		{"demo --chaos --faults 0", 2, "give --faults a number from 1"},
		{"stress --chaos --faults -1", 2, "give --faults a number from 1"},
		{"stress --chaos --count 2000000", 2, "give a smaller --count"},
		{"stress --chaos --set " + oneNode + " --set cluster.replicas=1", 2, "configure three nodes"},
		{"stress --chaos --set " + farNodes, 2, "cannot be killed from here"},
		{"stress --chaos --set " + farNodes, 2, "imgcluster demo --chaos"},
		{"demo --count 0", 2, "give --count a number from 1"},
		{"demo --chaos --faults 31", 2, "31 faults in a run of 30 uploads"},
		{"demo --min-pixels 9 --max-pixels 20", 2, "--min-pixels"},
		{"generate --count 0", 2, "--count"},
		{"generate --count 99999999999999999999", 2, "for \"--count\" flag"},
		{"generate --min-pixels 100000 --max-pixels 200000", 2, "--max-pixels"},
		{"generate --count 1000000", 1, "name another disk with --out"},
		{"generate --count 1 --out one.png", 2, "name a folder with --out"},
		{"generate --count 1 --out missing/set", 2, "there is no folder missing"},
		{"generate --count 1 --out one.png/set", 2, "there is no folder one.png"},
		{"generate --workers -1", 2, "--workers"},
		{"report", 2, "use: imgcluster report LOG"},
		{"report missing.jsonl", 2, "missing.jsonl: no such file or directory"},
		{"report folder", 2, "it is a folder"},
		{"report empty.png", 2, "the file is empty"},
		{"report one.png", 2, "line 1"},
		{"report broken.jsonl", 2, "line 3"},
		{"up --set " + farNodes, 2, "imgcluster server --id N --set " + farNodes},
		{"--config missing.yaml status", 2, "there is no such file"},
		{"--config bad.yaml config validate", 2, "bad.yaml:2: cluster.colour"},
		{"config show --set cluster.replicas=7", 2, "cluster.replicas"},
		{"init", 2, "master.key has mode 0644"},
	} {
		t.Run(test.args, func(t *testing.T) {
			call(t, strings.Fields(test.args)...).expectRefused(t, test.status, test.said)
		})
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != badFolderFiles {
		t.Errorf("%d files in the folder, not %d: %v", len(left), badFolderFiles, err)
	}
}

const badFolderFiles = 23

// badFolder is a folder with the files that TestBadInput names.
func badFolder(t *testing.T) string {
	dir := t.TempDir()
	writeConfig(t, dir, "")
	for name, text := range map[string]string{
		"one.png":                    "1",
		"two.png":                    "2",
		"sub/one.png":                "1",
		"empty.png":                  "",
		"large/x":                    "",
		"folder/x/y":                 "",
		"empty/x/y":                  "",
		"imgcluster-keys/master.key": "",
		"bad.yaml":                   "cluster:\n  colour: blue\n",
		"good.jsonl":                 goodLog,
		"failed.jsonl":               failedLog,
		"broken.jsonl":               brokenLog,
		"cut.jsonl":                  cutLog,
		"chaos.jsonl":                chaosLog,
		"timed.jsonl":                timedLog,
		"two.jsonl":                  strings.Replace(goodLog, `"count":1,`, `"count":2,`, 1),
		"runs.jsonl":                 goodLog + failedLog,
		"mark.jsonl":                 "\xef\xbb\xbf" + runLine + oneUpload,
		"utf16.jsonl":                "\xff\xfe{\x00",
		"packed.jsonl.gz":            logtest.Gzip(t, runLine+oneUpload),
		"cut.jsonl.gz":               logtest.Gzip(t, goodLog)[:60],
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	large, err := os.Create(filepath.Join(dir, "large.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := large.Truncate(64<<20 + 1); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "large/x"), 64<<20+1); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReportOfLogs(t *testing.T) {
	t.Chdir(badFolder(t))
	for _, test := range []struct {
		args   string
		status int
		out    string
	}{
		{"report good.jsonl", 0, "Success 1 of 1"},
		{"report cut.jsonl", 0, "the last line is truncated"},
		{"report failed.jsonl", exitVerdict, "Success 1 of 2"},
		{"report mark.jsonl", exitVerdict, "INCOMPLETE: no end record"},
		{"report packed.jsonl.gz", exitVerdict, "INCOMPLETE: no end record"},
		{"report packed.jsonl.gz --csv", exitVerdict, "INCOMPLETE: no end record"},
		{"report good.jsonl --compare mark.jsonl", 0, "the run of mark.jsonl is INCOMPLETE: no end record"},
		{"report good.jsonl mark.jsonl", exitVerdict, "incomplete"},
		{"report failed.jsonl --json", exitVerdict, `"passed": false`},
	} {
		e := call(t, strings.Fields(test.args)...)
		e.expectOut(t, test.status, test.out)
		if e.err != "" {
			t.Errorf("%s: %s", test.args, e.err)
		}
	}
}

// TestLocalCommands runs commands that need no cluster.
func TestLocalCommands(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeConfig(t, dir, "")
	for _, test := range []struct{ args, out string }{
		{"", "Run a cluster:"},
		{"version", "imgcluster "},
		{"version --json", `"version":`},
		{"completion bash", "bash completion"},
		{"config show", "cluster.replicas "},
		{"config show", "imgcluster.yaml:2"},
		{"config show --verbose", "durable copies of each image"},
		{"config show --json", `"key":"cluster.replicas"`},
		{"config validate", "imgcluster.yaml is valid: 3 nodes, 12 data shards, 2 copies of each image"},
		{"config validate --set cluster.replicas=1", "warning: flag --set: cluster.replicas: one copy"},
		{"config validate --json --set cluster.replicas=1", `"problems":[],"warnings":[{`},
		{"init --json --set node.master_key_file=keys/a.key", `"master_key":"keys/a.key"`},
		{"init --set node.master_key_file=keys/b.key", "made   keys/b.key  master key "},
		{"generate --count 8 --min-pixels 16 --max-pixels 40 --out set", "broadcast to 3 nodes: "},
		{"generate --count 8 --min-pixels 16 --max-pixels 40 --out set --json", `"images":8`},
	} {
		e := call(t, strings.Fields(test.args)...)
		e.expectOut(t, 0, test.out)
		forPrograms := strings.Contains(test.args, "--json") || strings.HasPrefix(test.args, "completion")
		if !forPrograms && test.args != "" && columnsOf(e.out) > term.Width {
			t.Errorf("%d columns: %v", columnsOf(e.out), e)
		}
	}
	call(t, "config", "validate", "--json", "--set", "cluster.replicas=7").expectOut(t, 2, `"valid":false`)
	if info, err := os.Stat(filepath.Join(dir, "keys/a.key")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the key: %v, %v", info, err)
	}
}

// TestSilentCluster has nodes that accept connections and never answer.
func TestSilentCluster(t *testing.T) {
	t.Parallel()
	nodes := "cluster.nodes="
	for _, id := range []string{"1", "2", "3"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		nodes += id + "=127.0.0.1:" + port + ":" + id + ","
	}
	e := finish(t, program(t, t.TempDir(), "stress", "--count", "1", "--set", strings.TrimSuffix(nodes, ",")))
	e.expectErr(t, exitNobody, "2.5s", "hint: start them with")
}

// TestUpPortTaken leaves nothing behind when a port of a later node is taken.
func TestUpPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	writeConfig(t, dir, "")
	text := string(read(t, filepath.Join(dir, "imgcluster.yaml")))
	_, port, _ := net.SplitHostPort(l.Addr().String())
	at := strings.LastIndex(text, "raft_port: ")
	text = text[:at] + "raft_port: " + port + text[at+strings.Index(text[at:], "}"):]
	if err := os.WriteFile(filepath.Join(dir, "taken.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	e := finish(t, program(t, dir, "up", "--config", "taken.yaml"))
	e.expectRefused(t, exitUsage, "node 3 needs 127.0.0.1:"+port)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// columnsOf returns the width of the widest line.
func columnsOf(text string) int {
	most := 0
	for line := range strings.SplitSeq(text, "\n") {
		most = max(most, len([]rune(line)))
	}
	return most
}
