# Dialhome: the few commands that a person or a build machine needs.
#
#   make demo [IMAGE=FILE]   a gateway and three boards behind a hostile link, on this machine
#   make test                everything: installs what the tests need, runs all of them, says what each took
#   make board-test          the boards' firmware in QEMU against a real gateway [CUTS=N: more power cuts]
#   make check               the quick part of it: format, lints, tidiness
#   make compare [ROWS=...]  the same job by mosquitto, nginx and Dialhome, side by side (air and transports need root);
#                            ROUNDS=7, SESSIONS=19000, JSON=FILE; dialhome-loadtest compare --help
#   make bench               benchmark of the handshake, without sockets
#   make agent [TARGET=...]  the agent as one small static file for a board's processor, such as
#                            aarch64-unknown-linux-musl; mipsel and others: device-client/service/README.md;
#                            QUIC=no leaves QUIC out, and the need of a C compiler for that processor
#   make size                what the client costs on a Cortex-M0, against its budgets
#   make load [SCENARIO=NAME] [BOARDS=N]   plays a scenario of loadtest/ at full size; a report as HTML and JSON
#   make build               both programs, with the profile that the demo and the tests use

.PHONY: all agent build demo test board-test check bench compare load size clean

all: build

build:
	cargo build --bins

demo: build
	@cargo run --quiet --bin dialhome -- demo $(if $(IMAGE),"$(IMAGE)")

test:
	@.ci/test all

board-test:
	@.ci/prepare
	cargo build --bins -p dialhome-gateway -p dialhome-device
	cargo test -p dialhome-board-harness --no-fail-fast -- --show-output

check:
	@.ci/test quick

agent:
	@QUIC=$(QUIC) .ci/agent $(TARGET)

bench:
	cargo bench -p dialhome-gateway --bench handshake

compare:
	@.ci/prepare
	cargo build --release --bins -p dialhome-gateway -p dialhome-device -p dialhome-loadtest
	@cargo run --quiet --release -p dialhome-loadtest -- compare $(ROWS) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SESSIONS),--sessions $(SESSIONS)) $(if $(JSON),--json $(JSON))

# A name of loadtest/scenarios/, or a file.
SCENARIO ?= smoke
LOAD := $(or $(CARGO_TARGET_DIR),target)

load:
	cargo build --release --bins -p dialhome-gateway -p dialhome-loadtest
	$(LOAD)/release/dialhome-loadtest run $(SCENARIO) $(if $(BOARDS),--boards $(BOARDS)) \
		--html $(LOAD)/load-$(notdir $(basename $(SCENARIO))).html --json $(LOAD)/load-$(notdir $(basename $(SCENARIO))).json

size:
	@.ci/prepare
	cargo run --quiet -p dialhome-board-harness --bin size

clean:
	cargo clean
