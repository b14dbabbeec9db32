# `make demo` and `make test` are all that a newcomer types; both install what they need below .cache/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench peers fmt clean-cache

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 20

demo: ## a real prompt flow behind flowtap, with questions asked; ARGS=--once ends after the checks
	@deploy/demo/demo.sh $(ARGS)

test: ## everything that CI runs
	@tests/all.sh

bench: ## flowtap beside nginx and Envoy, into docs/PERFORMANCE.md; ARGS="--rounds 3 --only plain:16" shortens it
	@benches/compare/run.sh $(ARGS)

peers: ## installs the real servers and SDKs that the tests talk to
	@tests/peers/install.sh

fmt: ## formats the sources
	@cargo fmt

clean-cache: ## removes installed peers (not the build)
	@rm -rf .cache
