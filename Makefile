# `make demo` and `make test` are all that a newcomer types; both install what they need below .cache/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test soak fuzz twice deny bench instructions order peers fmt clean-cache spark-check

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 20

demo: ## a real prompt flow behind flowtap, with questions asked; ARGS=--once ends after the checks
	@deploy/demo/demo.sh $(ARGS)

test: ## everything that CI runs
	@tests/all.sh

SECONDS_OF_SOAK ?= 1800
soak: ## everything fails at once for half an hour, a store away for ten minutes, 200 crashes; SECONDS_OF_SOAK=300 shortens it
	@TEST_KILLS=200 TEST_SOAK_SECONDS=$(SECONDS_OF_SOAK) cargo test --locked --features failpoints --test it -- \
	    --nocapture --test-threads 1 after_kills_at_every_step outage:: soak::

SECONDS_OF_FUZZ ?= 60
fuzz: ## each target of fuzz/ for a minute, by coverage (libFuzzer, which needs a C++ compiler); SECONDS_OF_FUZZ=600 for longer
	@fuzz/run.sh $(SECONDS_OF_FUZZ)

twice: ## the program built twice, and compared; PROFILE=dev is quicker
	@tests/twice.sh

deny: ## licences, sources and banned crates, by cargo-deny
	@tests/peers/deny.sh

bench: ## flowtap beside nginx, haproxy and Envoy, into docs/PERFORMANCE.md; PEERS=all for LiteLLM and Portkey, ARGS="--rounds 3 --only plain:16" shortens it
	@benches/compare/run.sh $(ARGS)

instructions: ## instructions an exchange, by callgrind, beside benches/baseline; ARGS=--bless keeps them
	@benches/instructions.sh $(ARGS)

order: ## which functions the linker lays together, by what runs under callgrind, into link/start.ld; after large changes
	@cargo build --locked --release --bin flowtap && cp target/release/flowtap target/flowtap-released
	@cargo build --locked --profile bench --bin flowtap
	@python3 benches/order.py --flowtap target/flowtap-released --flowtap target/release/flowtap

spark-check: ## a monitor's run by flowtap and by Spark over 100,000 records: the same, and how long; ARGS="100000 1000000" for more
	@tests/peers/spark.sh
	@cargo bench --locked --bench spark -- $(ARGS)

peers: ## installs the real servers and SDKs that the tests talk to
	@tests/peers/install.sh

fmt: ## formats the sources
	@cargo fmt

clean-cache: ## removes installed peers (not the build)
	@rm -rf .cache
