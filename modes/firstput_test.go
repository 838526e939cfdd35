package modes

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/poll"
)

// machines are hosts of a network, each with a home folder. Commands run on them by a shell, in which ssh and
// scp reach the other machines' homes and network namespaces.
type machines struct {
	t     *testing.T
	net   *clustertest.Network
	dir   string // has a folder for each machine
	count int    // commands that were run
}

// sshScript runs a command on another machine: ssh HOST COMMAND.
const sshScript = `#!/bin/sh
host=$1; shift
cd "$MACHINES/$host" && exec ip netns exec "$(cat "$MACHINES/$host.ns")" sh -c "$*"
`

// scpScript copies files to the home folder of another machine: scp -rp FILE... HOST:
const scpScript = `#!/bin/sh
[ "$1" = -rp ] || exit 2; shift
for last; do :; done
files=; while [ $# -gt 1 ]; do files="$files $1"; shift; done
case $last in *:) cp -rp $files "$MACHINES/${last%:}/";; *) exit 2;; esac
`

func newMachines(t *testing.T, hosts ...string) *machines {
	t.Helper()
	var addrs []netip.Addr
	for _, h := range hosts {
		addrs = append(addrs, netip.MustParseAddr(h))
	}
	m := &machines{t: t, net: clustertest.NewNetwork(t, addrs...), dir: t.TempDir()}
	bin := filepath.Join(m.dir, "bin")
	must(t, os.Mkdir(bin, 0o755), os.Symlink(os.Args[0], filepath.Join(bin, "imgcluster")),
		os.WriteFile(filepath.Join(bin, "ssh"), []byte(sshScript), 0o755),
		os.WriteFile(filepath.Join(bin, "scp"), []byte(scpScript), 0o755))
	for i, h := range hosts {
		must(t, os.Mkdir(filepath.Join(m.dir, h), 0o755),
			os.WriteFile(filepath.Join(m.dir, h+".ns"), []byte(m.net.Name(addrs[i])), 0o644))
	}
	return m
}

// run runs a command line on a machine, in its home folder, as one command that an operator types.
func (m *machines) run(host, line string) ended {
	m.t.Helper()
	m.count++
	return m.try(host, line)
}

func (m *machines) try(host, line string) ended {
	m.t.Helper()
	var out, errs bytes.Buffer
	cmd := m.net.Command(netip.MustParseAddr(host), "/bin/sh", "-c", line)
	cmd.Dir = filepath.Join(m.dir, host)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "MACHINES="+m.dir,
		"PATH="+filepath.Join(m.dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"XDG_CONFIG_HOME="+filepath.Join(m.dir, host))
	status := 0
	if err := cmd.Run(); err != nil {
		if status = cmd.ProcessState.ExitCode(); status <= 0 {
			m.t.Fatalf("%s: %v", line, err)
		}
	}
	return ended{line, out.String(), errs.String(), status}
}

// stop ends the servers, each of which has written its process ID.
func (m *machines) stop(hosts ...string) {
	for _, h := range hosts {
		m.try(h, "kill $(cat server.pid)")
	}
	for _, h := range hosts {
		poll.Until(m.t, waitMax, "the server to end", func() bool {
			return m.try(h, "kill -0 $(cat server.pid) 2>/dev/null").status != 0
		})
	}
}

// line returns what init says under a heading.
func line(t *testing.T, out, heading string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + heading + ` +(.*)$`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no %s in\n%s", heading, out)
	}
	return found[1]
}

// stepsMax is how many commands it may take from an empty machine to the first image.
const stepsMax = 5

// TestFirstPut sets a cluster up on three machines with what init prints, and stores and reads images: as the
// administrator, and from a fourth machine with an access key. Each command that is typed is counted.
func TestFirstPut(t *testing.T) {
	const guest = "10.40.7.7"
	hosts := []string{hostA, hostB, hostC}
	m := newMachines(t, append(hosts, guest)...)
	photo := photos(t)[0]
	must(t, os.WriteFile(filepath.Join(m.dir, hostA, "photo.jpg"), read(t, photo), 0o644),
		os.WriteFile(filepath.Join(m.dir, guest, "photo.jpg"), read(t, photo), 0o644))
	began := time.Now()
	e := m.run(hostA, "imgcluster init "+strings.Join(hosts, " "))
	e.expectOut(t, 0)
	m.run(hostA, line(t, e.out, "Copy")).expectOut(t, 0)
	start := line(t, e.out, "Start")
	if !strings.Contains(start, "nohup imgcluster server >>imgcluster.log 2>&1 &") {
		t.Fatalf("unexpected: %s", start)
	}
	t.Cleanup(func() { m.stop(hosts...) })
	start = strings.Replace(start, "2>&1 &", "2>&1 & echo $! >server.pid", 1) // for stop
	m.run(hostA, start).expectOut(t, 0)
	m.run(hostA, "imgcluster put --user alice photo.jpg").expectOut(t, 0, "alice/photo.jpg", "copies on")
	t.Logf("the first image is stored %.1f s after init, with %d commands", time.Since(began).Seconds(), m.count)
	if m.count > stepsMax {
		t.Errorf("it took %d commands", m.count)
	}
	for _, h := range hosts {
		if got := folder(t, filepath.Join(m.dir, h)); !strings.HasPrefix(got[keyPath], "-r--------") {
			t.Errorf("the master key on %s is %.10s", h, got[keyPath])
		}
	}
	e = m.try(hostC, "imgcluster status")
	e.expectOut(t, 0, "imgcluster is ready")
	if strings.Contains(e.out, "plain HTTP") {
		t.Errorf("%v", e)
	}
	m.try(hostB, "imgcluster get alice/photo.jpg -o copy.jpg && cmp copy.jpg ../"+hostA+"/photo.jpg").
		expectOut(t, 0)

	// A machine without the master key.
	m.try(guest, "cp ../"+hostA+"/imgcluster.yaml .")
	m.try(guest, "imgcluster ls alice").expectRefused(t, 2, "there is no ca.crt", "copy ca.crt there")
	m.try(guest, "cp ../"+hostA+"/ca.crt .")
	m.try(guest, "imgcluster ls alice").expectRefused(t, 1, "asks for an access key")
	e = m.try(hostA, "imgcluster key add --user bob --role write --json")
	e.expectOut(t, 0)
	id := regexp.MustCompile(`"IC[A-Z2-7]{18}"`).FindString(e.out)
	secret := regexp.MustCompile(`"secret[a-z_]*":"([^"]+)"`).FindStringSubmatch(e.out)
	if id == "" || secret == nil {
		t.Fatalf("%v", e)
	}
	key := fmt.Sprintf("IMGCLUSTER_ACCESS_KEY=%s IMGCLUSTER_SECRET_KEY=%s ", strings.Trim(id, `"`), secret[1])
	m.try(guest, key+"imgcluster put --user bob photo.jpg").expectOut(t, 0, "bob/photo.jpg")
	m.try(guest, key+"imgcluster get bob/photo.jpg -o - | cmp - photo.jpg").expectOut(t, 0)
	m.try(guest, key+"imgcluster get alice/photo.jpg -o -").expectRefused(t, 1, "alice")
	m.try(guest, key+"imgcluster member list").expectRefused(t, 1)
}
