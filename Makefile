# The same commands that CI runs, and the slow loops that it does not.

# Packages in which goroutines meet.
RACE = ./cluster/... ./modes/chaos ./modes/load ./modes/result

# What the detector has nothing to see in: a pure model, and processes whose waits are what is tested.
RACE_SKIP = TestModel|TestHistories|TestNetwork|TestPowerCuts|TestLayout

.PHONY: build test race lint format bench extreme powercuts histories bugs fuzz clean

build: ## the binary
	go build -o imgcluster .

test: ## what the README says
	go test ./...

race:
	go test -race -shuffle=on -skip '$(RACE_SKIP)' -timeout 20m $(RACE)

lint:
	go vet ./...
	go tool staticcheck ./...
	go tool deadcode -test ./...

format:
	go tool gofumpt -w .

# Throughput against a bare broadcast of the same bytes, interleaved; see BENCHMARKS.md.
bench:
	go test ./modes -run '^$$' -bench Broadcast -benchtime 1x -timeout 30m

# The whole extreme run on a local cluster: 40 GB of disk while it runs, and some minutes.
extreme: build
	./testdata/extreme.sh

# Of the loops below: how often, and from which seed. make powercuts COUNT=1000 SEED=7
SEED = 1
powercuts: COUNT = 200
histories: COUNT = 2000

# Power cuts on a real ext4 in the middle of commits; needs root.
powercuts:
	IMGCLUSTER_POWER_CUTS=$(COUNT) IMGCLUSTER_SEED=$(SEED) go test ./cluster/store -run TestPowerCuts -count=1 -v -timeout 1h

FUZZTIME = 30s
fuzz:
	go test ./cluster/catalog -run '^$$' -fuzz FuzzApply -fuzztime $(FUZZTIME)

# Clients of one cluster with faults under way; what they saw must be linearizable.
histories:
	IMGCLUSTER_HISTORIES=$(COUNT) IMGCLUSTER_SEED=$(SEED) go test ./cluster -run '^TestHistories$$' -count 1 -v -timeout 2h

# Seeds known bugs one after the other and shows which test catches each.
bugs:
	./testdata/bugs.sh

clean:
	rm -f imgcluster log.jsonl
