package stress

import (
	"errors"
	"os"
	"testing"
)

// testVersion is that of the program and of all nodes.
const testVersion = "1.0"

// Logs of runs.
const (
	runLine   = `{"type":"run","schema":1,"started":"2026-01-02T15:04:05Z","profile":"quick","nodes":[1],"count":1,"concurrency":1,"delivery":"broadcast","replicas":1}` + "\n"
	oneUpload = `{"type":"upload","seq":1,"name":"a.png","class":"small","bytes":10,"start_s":0,"latency_s":0.1,"ok":true,"owner":1,"replicas":[1],"attempts":1,"sent_bytes":10}` + "\n"
	endLine   = `{"type":"end","elapsed_s":0.1}` + "\n"
	goodLog   = runLine + oneUpload + endLine
	failedLog = runLine + oneUpload + `{"type":"upload","seq":2,"name":"b.png","class":"small","bytes":10,"start_s":0,"latency_s":0.1,"ok":false,"error":"no quorum","attempts":3,"sent_bytes":0}` + "\n" + endLine
	cutLog    = goodLog + `{"type":"upl`
	chaosLog  = `{"type":"run","schema":1,"nodes":[1],"count":2,"concurrency":1,"replicas":1,"faults":1}` + "\n"
)

// errDown is of a node that does not answer.
var errDown = errors.New("it is down")

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hintOf is the next step of an error.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}
