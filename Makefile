# The same commands that CI runs, and the slow loops that it does not.

# Packages in which goroutines meet. One after the other: their clusters need the processors.
RACE = ./cluster/... ./modes/local ./modes/stress/... ./modes/report/... ./modes/runlog

# What the detector has nothing to see in: a pure model, and processes, starts and floods whose waits are what is
# tested.
RACE_SKIP = TestModel|TestCrash|TestHistories|TestNetwork|TestPowerCuts|TestLayout|TestDamagedLog|TestForgottenTail
RACE_SKIP := $(RACE_SKIP)|TestLostDisk|TestManyImages|TestInodesFull|TestRestartsSendNothingTwice|TestStrangers
RACE_SKIP := $(RACE_SKIP)|TestSimulation

.PHONY: build static cross cross-all deb release release-check test readme race lint format bench networks extreme powercuts histories crash flips wipes damage slow scale bugs fuzz strangers simulate balance clean

build: ## the binary
	go build -o imgcluster .

test: ## what the README says
	go test ./...

readme: ## every command of the README, as a newcomer runs them
	go test ./modes -run '^TestReadme$$' -count 1 -v

race:
	go test -race -shuffle=on -p 1 -skip '$(RACE_SKIP)' -timeout 20m $(RACE)

lint:
	go vet ./...
	go tool staticcheck ./...
	@dead=$$(go tool deadcode -test ./...); [ -z "$$dead" ] || { echo "$$dead"; exit 1; }

static: ## without a C compiler, as it is released
	CGO_ENABLED=0 go build -trimpath -o imgcluster .

# Where people work beside Linux: the program for macOS, the commands of clients for Windows. Vet compiles the
# tests too. Of modes, whose tests start nodes, Windows vets the program's files. No file here is of one
# architecture, so CI compiles for one of each system; cross-all builds for the others too.
CLIENT = GOOS=windows GOARCH=amd64 go
cross cross-all: export CGO_ENABLED = 0
cross: ## for other systems than this one
	GOOS=darwin GOARCH=arm64 go build -o /dev/null .
	GOOS=darwin GOARCH=arm64 go vet ./...
	$(CLIENT) build -o /dev/null .
	$(CLIENT) vet $$($(CLIENT) list -deps . | grep '^imgcluster' | grep -v '^imgcluster/modes$$')
	$(CLIENT) vet $$($(CLIENT) list -f '{{range .GoFiles}}modes/{{.}} {{end}}' ./modes)

cross-all: cross
	GOOS=linux GOARCH=arm64 go build -o /dev/null .
	GOOS=darwin GOARCH=amd64 go build -o /dev/null .
	GOOS=windows GOARCH=arm64 go build -o /dev/null .

deb: static ## a Debian package, in this folder
	testdata/deploy/deb.sh ./imgcluster .

# What a release has, of the commit that is checked out: binaries, their bills of materials, the Debian package
# and SHA256SUMS. See Releases in CONTRIBUTING.md.
RELEASE = release
release: ## into a new folder
	testdata/deploy/release.sh $(RELEASE) $(PLATFORMS)

# Twice the same bytes: make release-check PLATFORMS=linux/amd64 COMPRESS=none is fast; FRESH=1 compiles all of the
# second again.
release-check:
	FRESH=$(FRESH) testdata/deploy/release-check.sh $(PLATFORMS)

format:
	go tool gofumpt -w .

# The program beside what the machine allows, interleaved: half an hour. Figures go to OUT, and a table to
# stdout. make bench COMPARE=old.json ONLY='^put 13 MB.* 8 at once'
OUT = bench.json
bench:
	go run ./modes/bench --out $(OUT) $(if $(ONLY),--only '$(ONLY)') $(if $(COMPARE),--compare $(COMPARE))

# What uploads get of links of 1 Gbit/s, 100 and 10 Mbit/s, and of one limited at a node, by each delivery: ten
# minutes; needs root. make networks ONLY='client_100_Mbit/s/relay'
networks:
	NETWORKS=full go test ./modes/bench -run '^TestNetworks$$$(if $(ONLY),/$(ONLY))' -count 1 -v -timeout 1h

# The whole extreme run on a local cluster: 40 GB of disk while it runs, and some minutes.
extreme: build
	./testdata/extreme.sh

# Of the loops below: how often, and from which seed. make powercuts COUNT=1000 SEED=7
SEED = 1
NODES = 3
powercuts: COUNT = 200
histories: COUNT = 2000
crash: COUNT = 1000
flips: COUNT = 1000
wipes: COUNT = 300
damage: COUNT = 10
simulate: COUNT = 100000
strangers: COUNT = 30
balance: COUNT = 1000

# How even the shares are in COUNT simulated runs: the table of BENCHMARKS.md.
balance:
	IMGCLUSTER_RUNS=$(COUNT) go test ./cluster/placement -run '^TestBalance$$' -count 1 -v -timeout 2h

# Uploads on three simulated nodes that fail, each invariant after each event.
simulate:
	SIMULATE=$(COUNT) SIMULATE_FROM=$(SEED) go test ./cluster/commit -run TestSimulation -count=1 -v -timeout 2h

# Power cuts on a real ext4 in the middle of commits; needs root.
powercuts:
	IMGCLUSTER_POWER_CUTS=$(COUNT) IMGCLUSTER_SEED=$(SEED) go test ./cluster/store -run TestPowerCuts -count=1 -v -timeout 1h

# Every fuzz test, FUZZTIME each, from the corpus under its package's testdata. What fails is added there.
FUZZTIME = 30s
fuzz:
	@grep -roE --include='*_test.go' '^func Fuzz[A-Za-z]+' . | sort | while IFS=: read file func; do \
		go test $$(dirname $$file) -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x || exit; \
	done

# Whoever is on the network against both ports of a cluster under load, COUNT times what go test does.
strangers:
	STRANGERS=$(COUNT) go test ./cluster -run '^TestStrangers$$' -count 1 -v -timeout 1h

# Clients of one cluster with faults under way; what they saw must be linearizable.
histories:
	IMGCLUSTER_HISTORIES=$(COUNT) IMGCLUSTER_NODES=$(NODES) IMGCLUSTER_SEED=$(SEED) go test ./cluster -run '^TestHistories$$' -count 1 -v -timeout 2h

# Nodes killed at the steps of uploads, repairs and changes of the members, under load; all invariants
# after each.
crash:
	IMGCLUSTER_CRASHES=$(COUNT) IMGCLUSTER_SEED=$(SEED) go test ./cluster -run '^TestCrash$$' -count 1 -v -timeout 4h

# Bits flipped anywhere in stored images: all found, all repaired.
flips:
	IMGCLUSTER_FLIPS=$(COUNT) IMGCLUSTER_SEED=$(SEED) go test ./cluster -run '^TestFlips$$' -count 1 -v -timeout 1h

# Each node's disk wiped in turn, under COUNT images and more uploads, and rebuilt from the others.
wipes:
	IMGCLUSTER_WIPES=$(COUNT) go test ./cluster -run '^TestLostDisk$$' -count 1 -v -timeout 1h

# Every kind of file that Raft and the catalog keep, flipped and cut, COUNT times each.
damage:
	IMGCLUSTER_DAMAGE=$(COUNT) IMGCLUSTER_SEED=$(SEED) go test ./cluster -run '^TestDamagedLog$$' -count 1 -v -timeout 3h

# COUNT slow readers, and as many uploads that stop as a node takes, against the memory of a node with default
# settings; then COUNT of them, 10,000 idle connections and 1,000 slow uploads, beside normal
# uploads: ten minutes.
slow: COUNT = 900
slow:
	SLOW_CLIENTS=$(COUNT) go test ./modes -run '^(TestMemoryOfSlowClients|TestAttack)$$' -count 1 -v -timeout 30m

# COUNT images in a cluster: start, list, memory; and as many records in one shard: apply, snapshot, restart.
scale: COUNT = 1000000
scale:
	IMGCLUSTER_IMAGES=$(COUNT) go test ./cluster -run '^TestManyImages$$' -count 1 -v -timeout 2h
	IMGCLUSTER_RECORDS=$(COUNT) go test ./cluster/consensus -run '^$$' -bench Records -benchtime 1x -timeout 4h
	go test ./cluster/placement -run '^$$' -bench 'Rank|Place'

# Seeds known bugs one after the other and shows which test catches each.
bugs:
	./testdata/bugs.sh

clean:
	rm -rf imgcluster log.jsonl release
